//! An HTTP proxy that fails on purpose: resets, refusals, lost answers, truncated and changed bodies.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the accepting thread looks whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A connection that is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed before the request is passed on.
    Reset,
    /// The request is done, and its answer lost.
    LostAnswer,
    /// Another answer with this status, the request not being passed on.
    Status(u16),
    /// Half of the answer's body, then the end of the connection.
    Truncated,
    /// One bit of the body is changed, in answers to ranged reads.
    Corrupted,
}

/// A proxy to one address, one request a connection; its threads end when it is dropped.
#[derive(Debug)]
pub struct FaultyProxy {
    address: SocketAddr,
    link: Arc<Link>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Link {
    target: SocketAddr,
    ended: AtomicBool,
    seen: AtomicU64,
    done: AtomicU64,
    plan: Mutex<FaultPlan>,
}

#[derive(Debug, Default)]
struct FaultPlan {
    faults: Vec<Fault>,
    every: u64,
}

/// A request or an answer: its head without the empty line, and its body.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl FaultyProxy {
    /// A proxy on `listen` to `target` that does nothing wrong yet.
    ///
    /// # Panics
    /// The address is taken.
    pub fn start(listen: SocketAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(listen).expect("a free address");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("a listener can be asked without waiting");
        let link = Arc::new(Link {
            target,
            ended: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            done: AtomicU64::new(0),
            plan: Mutex::default(),
        });
        let of_thread = Arc::clone(&link);
        let accepting = Some(std::thread::spawn(move || accept(&listener, &of_thread)));
        Self { address, link, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every `every`-th request from now on meets the next of these faults; none for an empty list.
    ///
    /// # Panics
    /// A thread of the proxy did.
    pub fn inject(&self, faults: &[Fault], every: u64) {
        *self.link.plan.lock().expect("nobody panics with it") = FaultPlan { faults: faults.to_vec(), every };
        self.link.seen.store(0, Ordering::Relaxed);
        self.link.done.store(0, Ordering::Relaxed);
    }

    /// Faults done since the last [`FaultyProxy::inject`].
    pub fn faults(&self) -> u64 {
        self.link.done.load(Ordering::Relaxed)
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.link.ended.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            // A panic in it was shown already.
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, link: &Arc<Link>) {
    while !link.ended.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) => {
                let link = Arc::clone(link);
                // Ends with its connection. One that breaks is what this proxy is for.
                std::thread::spawn(move || drop(serve(client, &link)));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

impl Link {
    /// What goes wrong with the next request.
    fn next_fault(&self) -> Option<Fault> {
        let plan = self.plan.lock().expect("nobody panics with it");
        if plan.faults.is_empty() {
            return None;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let turn = (number / plan.every) as usize - usize::from(number >= plan.every);
        number.is_multiple_of(plan.every).then(|| plan.faults[turn % plan.faults.len()])
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

fn serve(mut client: TcpStream, link: &Link) -> std::io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(SILENCE))?;
    let Some(request) = read_request(&mut client)? else { return Ok(()) };
    let fault = link.next_fault();
    match fault {
        Some(Fault::Reset) => {
            link.count();
            return client.shutdown(Shutdown::Both);
        }
        Some(Fault::Status(status)) => {
            link.count();
            return refuse(&mut client, status);
        }
        _ => {}
    }
    let mut answer = pass_on(&request, link.target)?;
    let ranged = answer.head.split(' ').nth(1) == Some("206");
    match fault {
        Some(Fault::LostAnswer) => {
            link.count();
            return client.shutdown(Shutdown::Both);
        }
        Some(Fault::Truncated) if answer.body.len() > 1 => {
            link.count();
            answer.body.truncate(answer.body.len() / 2);
        }
        Some(Fault::Corrupted) if ranged && !answer.body.is_empty() => {
            link.count();
            let place = answer.body.len() / 2;
            answer.body[place] ^= 4;
        }
        _ => {}
    }
    write_message(&mut client, &answer)?;
    client.shutdown(Shutdown::Both)
}

fn refuse(client: &mut TcpStream, status: u16) -> std::io::Result<()> {
    let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>on purpose</Message></Error>";
    let head = format!(
        "HTTP/1.1 {status} On Purpose\r\nContent-Type: application/xml\r\nContent-Length: {}",
        body.len()
    );
    write_message(client, &Message { head: closing(&head), body: body.into() })?;
    client.shutdown(Shutdown::Both)
}

/// Sends the request on a connection of its own and reads its answer to the end.
fn pass_on(request: &Message, target: SocketAddr) -> std::io::Result<Message> {
    let mut server = TcpStream::connect(target)?;
    server.set_read_timeout(Some(SILENCE))?;
    write_message(&mut server, &Message { head: closing(&request.head), body: request.body.clone() })?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let end = head_end(&answer).ok_or(std::io::ErrorKind::InvalidData)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    Ok(Message { head: closing(&head), body: answer.split_off(end + 4) })
}

/// The request of a connection; `None` if there is none.
fn read_request(client: &mut TcpStream) -> std::io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    let end = loop {
        if let Some(end) = head_end(&bytes) {
            break end;
        }
        match client.read(&mut piece)? {
            0 => return Ok(None),
            length => bytes.extend_from_slice(&piece[..length]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = bytes.split_off(end + 4);
    let missing = length.unwrap_or(0usize).saturating_sub(body.len());
    client.take(missing as u64).read_to_end(&mut body)?;
    Ok(Some(Message { head, body }))
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n")
}

/// The head with a promise to close the connection in place of any other.
fn closing(head: &str) -> String {
    let kept = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    kept.chain(["Connection: close"]).collect::<Vec<_>>().join("\r\n")
}

fn write_message(stream: &mut TcpStream, message: &Message) -> std::io::Result<()> {
    let mut bytes = message.head.clone().into_bytes();
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(&message.body);
    stream.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that gives every connection the same answer.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free address");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = read_request(&mut stream);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).expect("the proxy listens");
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        // A reset is an answer that is empty.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn each_fault_is_done_in_its_turn() {
        let target = server("HTTP/1.1 206 Partial Content\r\nContent-Length: 6\r\n\r\nabcdef");
        let proxy = FaultyProxy::start("127.0.0.1:0".parse().expect("an address"), target);
        assert!(ask(proxy.address()).ends_with("abcdef"));
        let faults =
            [Fault::Reset, Fault::Status(503), Fault::Truncated, Fault::Corrupted, Fault::LostAnswer];
        proxy.inject(&faults, 2);
        let answers: Vec<String> = (0..10).map(|_| ask(proxy.address())).collect();
        assert!(answers.iter().step_by(2).all(|answer| answer.ends_with("abcdef")), "{answers:?}");
        assert!(answers[1].is_empty() && answers[9].is_empty(), "{answers:?}");
        assert!(answers[3].starts_with("HTTP/1.1 503") && answers[3].contains("SlowDown"), "{answers:?}");
        assert!(answers[5].ends_with("\r\n\r\nabc"), "{answers:?}");
        assert!(answers[7].ends_with("abc`ef"), "{answers:?}");
        assert_eq!(proxy.faults(), 5);
    }
}
