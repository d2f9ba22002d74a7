//! Connections that have not shown the run's token: bounded in time, in bytes and in number.
//!
//! Below TLS and HTTP/2, so that a connection that never speaks, half a handshake and half a preface are all
//! the same: a connection that has until its deadline to show the token, and little to say until then. Beyond
//! the number, the oldest of the address that has most of them goes, so that whoever comes next is let in to
//! show his.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// How long a connection may take to show the token, TLS handshake included.
const SHOW_WITHIN: Duration = Duration::from_secs(10);
/// Bytes that are read of a connection before it has: TLS handshake, HTTP/2 preface, the head of a call and a
/// Hello.
const MOST_BYTES: usize = 64 << 10;
/// Bytes read at a time until then.
const AT_A_TIME: usize = 4 << 10;
/// Calls of a connection until then.
const MOST_CALLS: u32 = 8;
/// Such connections of one listener, if there are descriptors for so many.
const MOST_CONNECTIONS: usize = 256;
/// Part of the process's descriptors that they may take.
const SHARE_OF_DESCRIPTORS: usize = 4;
/// Between two warnings of connections that were dropped.
const WARN_EVERY: Duration = Duration::from_secs(30);

const WAITING: u8 = 0;
const AUTHENTICATED: u8 = 1;
const DROPPED: u8 = 2;

/// The connections of one listener that have not shown the token.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Mutex<Unauthenticated>>);

#[derive(Debug)]
struct Unauthenticated {
    most: usize,
    within: Duration,
    next: u64,
    /// Oldest first.
    connections: BTreeMap<u64, Arc<State>>,
    dropped: u64,
    warned: Option<Instant>,
}

/// A connection, in the extensions of the requests that come over it.
#[derive(Debug, Clone)]
pub struct Connection(Arc<State>);

#[derive(Debug)]
struct State {
    id: u64,
    peer: SocketAddr,
    /// `WAITING`, `AUTHENTICATED` or `DROPPED`.
    standing: AtomicU8,
    calls: AtomicU32,
    /// The task that reads and writes it.
    waker: AtomicWaker,
    gate: Gate,
}

impl Gate {
    /// A gate for a listener of this process.
    pub(super) fn new() -> Self {
        let most = super::descriptors::limit() / SHARE_OF_DESCRIPTORS;
        Self::of(most.clamp(8, MOST_CONNECTIONS), SHOW_WITHIN)
    }

    fn of(most: usize, within: Duration) -> Self {
        let unauthenticated =
            Unauthenticated { most, within, next: 0, connections: BTreeMap::new(), dropped: 0, warned: None };
        Self(Arc::new(Mutex::new(unauthenticated)))
    }

    fn unauthenticated(&self) -> MutexGuard<'_, Unauthenticated> {
        // The map is consistent at every statement, so a poisoned lock is still good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in; the token must be shown over it in time.
    pub(super) fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Gated {
        let mut unauthenticated = self.unauthenticated();
        while unauthenticated.connections.len() >= unauthenticated.most {
            unauthenticated.drop_one();
        }
        let id = unauthenticated.next;
        unauthenticated.next += 1;
        let state = Arc::new(State {
            id,
            peer,
            standing: AtomicU8::new(WAITING),
            calls: AtomicU32::new(0),
            waker: AtomicWaker::new(),
            gate: self.clone(),
        });
        unauthenticated.connections.insert(id, state.clone());
        let deadline = Box::pin(tokio::time::sleep(unauthenticated.within));
        Gated { stream, connection: Connection(state), deadline: Some(deadline), read: 0 }
    }

    /// Drops half of the connections: the process has no descriptors left.
    pub(super) fn make_room(&self) {
        let mut unauthenticated = self.unauthenticated();
        for _ in 0..unauthenticated.connections.len().div_ceil(2) {
            unauthenticated.drop_one();
        }
    }

    fn forget(&self, id: u64) {
        self.unauthenticated().connections.remove(&id);
    }

    fn note_late(&self) {
        self.unauthenticated().note_dropped();
    }
}

impl Unauthenticated {
    /// Drops the oldest connection of the address that has most of them.
    fn drop_one(&mut self) {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for state in self.connections.values() {
            *counts.entry(state.peer.ip()).or_default() += 1;
        }
        let Some((most, _)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return };
        let oldest = self.connections.iter().find(|(_, state)| state.peer.ip() == most);
        let Some(state) = oldest.map(|(id, _)| *id).and_then(|id| self.connections.remove(&id)) else {
            return;
        };
        state.standing.store(DROPPED, Ordering::Release);
        state.waker.wake();
        self.note_dropped();
    }

    /// A word now and then: strangers do not fill the log.
    fn note_dropped(&mut self) {
        self.dropped += 1;
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(so_far = self.dropped, "connections that do not show the run's token are dropped");
        }
    }
}

impl Connection {
    /// Where it comes from.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// The token was shown over it: it stays as long as both sides want.
    pub fn authenticate(&self) {
        let state = &self.0;
        let shown =
            state.standing.compare_exchange(WAITING, AUTHENTICATED, Ordering::AcqRel, Ordering::Acquire);
        if shown.is_ok() {
            state.gate.forget(state.id);
            state.waker.wake();
        }
    }

    /// Whether the token was shown over it.
    pub fn is_authenticated(&self) -> bool {
        self.0.standing.load(Ordering::Acquire) == AUTHENTICATED
    }

    /// Whether one more call that does not show the token is answered.
    pub(super) fn may_call(&self) -> bool {
        self.0.calls.fetch_add(1, Ordering::Relaxed) < MOST_CALLS
    }
}

/// The stream of a connection; it fails when the token is not shown in time.
#[derive(Debug)]
pub struct Gated {
    stream: TcpStream,
    connection: Connection,
    /// Until the token is shown.
    deadline: Option<Pin<Box<Sleep>>>,
    read: usize,
}

impl Gated {
    #[cfg(test)]
    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether the token was shown, and the connection is as good as any; an error when it is to end.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let Some(deadline) = &mut self.deadline else { return Ok(true) };
        let state = &self.connection.0;
        // Before the look, so that no change is missed.
        state.waker.register(context.waker());
        match state.standing.load(Ordering::Acquire) {
            AUTHENTICATED => {
                self.deadline = None;
                return Ok(true);
            }
            DROPPED => return Err(refused("others that have not shown the run's token came after it")),
            _ => {}
        }
        if deadline.as_mut().poll(context).is_ready() {
            state.standing.store(DROPPED, Ordering::Release);
            state.gate.note_late();
            return Err(refused("the run's token was not shown in time"));
        }
        Ok(false)
    }
}

fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, reason)
}

impl Drop for Gated {
    fn drop(&mut self) {
        if self.deadline.is_some() {
            self.connection.0.gate.forget(self.connection.0.id);
        }
    }
}

impl Connected for Gated {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.check(context)? {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let room = into.remaining().min(MOST_BYTES.saturating_sub(self.read)).min(AT_A_TIME);
        if room == 0 {
            // Read on when the token is shown; the deadline wakes too.
            return Poll::Pending;
        }
        let mut few = [0; AT_A_TIME];
        let mut few = ReadBuf::new(&mut few[..room]);
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut few);
        self.read += few.filled().len();
        into.put_slice(few.filled());
        polled
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(gate: &Gate) -> (TcpStream, Gated) {
        pair_of(gate, None).await
    }

    /// Both ends of a connection that is taken for one of `peer`.
    async fn pair_of(gate: &Gate, peer: Option<SocketAddr>) -> (TcpStream, Gated) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, from) = accepted.expect("accepted");
        (client.expect("connected"), gate.admit(stream, peer.unwrap_or(from)))
    }

    #[tokio::test]
    async fn a_connection_that_shows_no_token_ends_at_the_deadline() {
        let within = Duration::from_millis(50);
        let gate = Gate::of(8, within);
        let (_client, mut gated) = pair(&gate).await;
        let before = Instant::now();
        let error = gated.read_u8().await.expect_err("nothing was sent");
        assert!(error.to_string().contains("in time"), "{error}");
        assert!(before.elapsed() >= within / 2 && gate.unauthenticated().dropped == 1);
        drop(gated);
        assert!(gate.unauthenticated().connections.is_empty());
    }

    #[tokio::test]
    async fn what_a_stranger_sends_is_read_up_to_a_bound_and_the_rest_when_the_token_is_shown() {
        let gate = Gate::of(8, SHOW_WITHIN);
        let (mut client, mut gated) = pair(&gate).await;
        let sent = 4 * MOST_BYTES;
        #[expect(clippy::disallowed_methods, reason = "joined by the test")]
        let sending = tokio::spawn(async move {
            client.write_all(&vec![7; sent]).await.expect("read in the end");
            client
        });
        let connection = gated.connect_info();
        let mut buffer = vec![0; sent];
        let mut read = 0;
        while let Ok(more) =
            tokio::time::timeout(Duration::from_millis(200), gated.read(&mut buffer[read..])).await
        {
            read += more.expect("still open");
        }
        assert_eq!(read, MOST_BYTES);
        connection.authenticate();
        gated.read_exact(&mut buffer[read..]).await.expect("the rest");
        assert!(connection.is_authenticated() && buffer.iter().all(|byte| *byte == 7));
        assert!(gate.unauthenticated().connections.is_empty());
        sending.await.expect("sent");
    }

    #[tokio::test]
    async fn beyond_the_number_the_oldest_goes_and_who_has_shown_the_token_stays() {
        let gate = Gate::of(3, SHOW_WITHIN);
        let mut member = pair(&gate).await;
        member.1.connect_info().authenticate();
        let mut strangers = Vec::new();
        for _ in 0..5 {
            strangers.push(pair(&gate).await);
        }
        let counts =
            |unauthenticated: &Unauthenticated| (unauthenticated.connections.len(), unauthenticated.dropped);
        assert_eq!(counts(&gate.unauthenticated()), (3, 2));
        for (place, (client, gated)) in strangers.iter_mut().enumerate() {
            client.write_all(b"x").await.expect("the socket is open");
            assert_eq!(gated.read_u8().await.is_err(), place < 2, "{place}");
        }
        member.0.write_all(b"x").await.expect("open");
        assert_eq!(member.1.read_u8().await.expect("a member"), b'x');
        gate.make_room();
        assert_eq!(gate.unauthenticated().connections.len(), 1);
    }

    #[tokio::test]
    async fn a_flood_from_one_address_drops_none_of_another() {
        let gate = Gate::of(4, SHOW_WITHIN);
        let other: SocketAddr = "192.0.2.1:9".parse().expect("an address");
        let _elsewhere = pair_of(&gate, Some(other)).await;
        let mut flood = Vec::new();
        for _ in 0..20 {
            flood.push(pair(&gate).await);
        }
        let left: Vec<IpAddr> =
            gate.unauthenticated().connections.values().map(|state| state.peer.ip()).collect();
        assert!(left.contains(&other.ip()) && left.len() == 4, "{left:?}");
    }
}
