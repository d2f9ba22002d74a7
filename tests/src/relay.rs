//! A link that a test can slow down, hold up in one direction, or cut: a relay of TCP connections.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a thread that waits looks whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Pieces in flight in one direction of a connection.
const IN_FLIGHT: usize = 1024;

/// A relay to one address; its threads end when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    link: Arc<Link>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Link {
    delay_ms: AtomicU64,
    /// Nothing more arrives at the target.
    forth_held: AtomicBool,
    /// Nothing more comes back from it.
    back_held: AtomicBool,
    ended: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// A relay to `target` that delays each piece by `delay`, either way.
    ///
    /// # Panics
    /// No address is free.
    pub fn to(target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free address");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("a listener can be asked without waiting");
        let link = Arc::new(Link::default());
        link.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
        let accepting = {
            let link = Arc::clone(&link);
            std::thread::spawn(move || accept(&listener, target, &link))
        };
        Self { address, link, accepting: Some(accepting) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds up what goes to the target, or lets it go on.
    pub fn hold_forth(&self, held: bool) {
        self.link.forth_held.store(held, Ordering::Relaxed);
    }

    /// Holds up what comes from the target, or lets it go on.
    pub fn hold_back(&self, held: bool) {
        self.link.back_held.store(held, Ordering::Relaxed);
    }

    /// Ends all connections; new ones are taken.
    pub fn cut(&self) {
        for connection in self.link.connections.lock().expect("nobody panics with it").drain(..) {
            // It may have ended already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.link.ended.store(true, Ordering::Relaxed);
        self.cut();
        if let Some(accepting) = self.accepting.take() {
            // A panic in it was shown already.
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, link: &Arc<Link>) {
    let mut pumps = Vec::new();
    while !link.ended.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((near, _)) => pumps.extend(join(near, target, link).into_iter().flatten()),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
    for pump in pumps {
        // A panic in it was shown already.
        let _ = pump.join();
    }
}

/// Joins a new connection to one of the target's, by two threads for each direction.
fn join(near: TcpStream, target: SocketAddr, link: &Arc<Link>) -> std::io::Result<Vec<JoinHandle<()>>> {
    near.set_nonblocking(false)?;
    let far = TcpStream::connect(target)?;
    let ways = [(near.try_clone()?, far.try_clone()?, true), (far.try_clone()?, near.try_clone()?, false)];
    link.connections.lock().expect("nobody panics with it").extend([near, far]);
    let mut threads = Vec::new();
    for (from, to, forth) in ways {
        from.set_nodelay(true)?;
        let (pieces, due) = mpsc::sync_channel(IN_FLIGHT);
        threads.push(std::thread::spawn(move || take(from, &pieces)));
        let link = Arc::clone(link);
        threads.push(std::thread::spawn(move || give(to, &due, &link, forth)));
    }
    Ok(threads)
}

/// Reads to the end of the connection.
fn take(mut from: TcpStream, pieces: &mpsc::SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if pieces.send((Instant::now(), buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

/// Writes each piece when it is due and the link lets it pass.
fn give(mut to: TcpStream, due: &mpsc::Receiver<(Instant, Vec<u8>)>, link: &Link, forth: bool) {
    let held = if forth { &link.forth_held } else { &link.back_held };
    while let Ok((came, piece)) = due.recv() {
        let delay = Duration::from_millis(link.delay_ms.load(Ordering::Relaxed));
        std::thread::sleep((came + delay).saturating_duration_since(Instant::now()));
        while held.load(Ordering::Relaxed) && !link.ended.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    // Its peer learns of the end; it may have ended already.
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, once.
    fn echo() -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free address");
        let address = listener.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut buffer = [0; 16];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
        (address, thread)
    }

    #[test]
    fn a_link_delays_holds_and_cuts() {
        let (address, server) = echo();
        let relay = Relay::to(address, Duration::from_millis(50));
        let mut stream = TcpStream::connect(relay.address()).expect("the relay listens");
        let mut buffer = [0; 4];
        let began = Instant::now();
        stream.write_all(b"ping").expect("sent");
        stream.read_exact(&mut buffer).expect("sent back");
        assert!(buffer == *b"ping" && began.elapsed() >= Duration::from_millis(100));

        relay.hold_back(true);
        stream.write_all(b"pong").expect("sent");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        assert!(stream.read_exact(&mut buffer).is_err(), "held");
        relay.hold_back(false);
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.read_exact(&mut buffer).expect("sent back late");
        assert_eq!(&buffer, b"pong");

        relay.cut();
        assert!(matches!(stream.read(&mut buffer), Ok(0) | Err(_)));
        drop(relay);
        server.join().expect("the server ends");
    }
}
