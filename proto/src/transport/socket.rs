//! The options of every TCP connection.

use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use super::gate::{Gate, Gated};

/// Silence after which the kernel asks the other host whether it is there, and the pause between two
/// questions.
pub(super) const ALIVE: Duration = Duration::from_secs(1);
/// Questions without an answer after which the connection is dead.
pub(super) const ALIVE_PROBES: u32 = 2;
/// How long what was sent may stay without an acknowledgement before the connection is dead. It is the kernel
/// of the other host that acknowledges, so a process that is busy is not taken for one that is gone.
#[cfg(target_os = "linux")]
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(2);
/// Pause after a failed accept: the usual cause, no free file descriptor, does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Between two warnings of connections that cannot be accepted.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The connections that arrive, with their options set, which have yet to show the run's token.
pub(super) fn accepted(listener: TcpListener) -> BoxStream<'static, io::Result<Gated>> {
    let acceptor = Acceptor { listener, gate: Gate::new(), warned: None };
    stream::unfold(acceptor, async |mut acceptor| Some((Ok(acceptor.next().await), acceptor))).boxed()
}

struct Acceptor {
    listener: TcpListener,
    gate: Gate,
    /// When it last warned that a connection could not be accepted.
    warned: Option<Instant>,
}

impl Acceptor {
    async fn next(&mut self) -> Gated {
        loop {
            let accepted = self.listener.accept().await;
            match accepted.and_then(|(stream, peer)| prepare(&stream).map(|()| (stream, peer))) {
                Ok((stream, peer)) => return self.gate.admit(stream, peer),
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                        self.warned = Some(Instant::now());
                        tracing::warn!(%error, "connections cannot be accepted");
                    }
                    // The usual cause is that no file descriptor is left.
                    self.gate.make_room();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether it is the connection that failed, and not the listener.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let alive = TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE).with_retries(ALIVE_PROBES);
    socket.set_tcp_keepalive(&alive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connections_notice_a_dead_host() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut incoming = accepted(listener);
        let (client, stream) = tokio::join!(TcpStream::connect(address), incoming.next());
        let stream = stream.expect("the stream of connections does not end").expect("accepted");
        let socket = SockRef::from(stream.socket());
        assert!(client.is_ok() && socket.tcp_nodelay().expect("readable"));
        assert!(socket.keepalive().expect("readable"));
        assert_eq!(socket.tcp_keepalive_time().expect("readable"), ALIVE);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("readable"), Some(UNACKNOWLEDGED));
    }
}
