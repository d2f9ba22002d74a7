//! The options of every TCP connection.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

/// Silence after which the kernel asks the other host whether it is there, and the pause between two questions.
pub(super) const ALIVE: Duration = Duration::from_secs(1);
/// Questions without an answer after which the connection is dead.
pub(super) const ALIVE_PROBES: u32 = 2;
/// How long what was sent may stay without an acknowledgement before the connection is dead. It is the kernel of the
/// other host that acknowledges, so a process that is busy is not taken for one that is gone.
#[cfg(target_os = "linux")]
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(2);
/// Pause after a failed accept: the usual cause, no free file descriptor, does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connections that arrive, with their options set.
pub(super) fn accepted(listener: TcpListener) -> BoxStream<'static, io::Result<TcpStream>> {
    stream::unfold(listener, async |listener| {
        loop {
            match listener.accept().await.and_then(|(stream, _)| prepare(&stream).map(|()| stream)) {
                Ok(stream) => return Some((Ok(stream), listener)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
    .boxed()
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
        let socket = SockRef::from(&stream);
        assert!(client.is_ok() && stream.nodelay().expect("readable"));
        assert!(socket.keepalive().expect("readable"));
        assert_eq!(socket.tcp_keepalive_time().expect("readable"), ALIVE);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("readable"), Some(UNACKNOWLEDGED));
    }
}
