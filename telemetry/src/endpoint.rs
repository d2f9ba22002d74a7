//! The plain HTTP port: `/livez`, `/readyz`, `/metrics`.

mod connection;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::connection::Timed;
use crate::readiness::Readiness;
use crate::recorder::Telemetry;

/// What `/metrics` is written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections open at a time: whoever opens more takes no descriptor from the work.
const MOST_CONNECTIONS: usize = 64;
/// How long a connection may be open: who forgets it gives its place back.
const LONGEST_CONNECTION: Duration = Duration::from_secs(60);
/// How long answers that are under way may take when the port is closed.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Pause after a connection could not be taken.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The port while it is open; closed when this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

impl Endpoint {
    /// Shows `telemetry` on `listener`, and `more` beside it; called within a runtime of tokio.
    ///
    /// # Errors
    /// The listener is none of tokio's.
    pub fn open(listener: std::net::TcpListener, telemetry: Telemetry, more: Router) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let served = axum::serve(Limited::new(listener), routes(telemetry).merge(more))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        #[expect(clippy::disallowed_methods, reason = "joined by `close`, aborted when dropped")]
        let server = tokio::spawn(served.into_future());
        Ok(Self { address, stop, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port.
    pub async fn close(mut self) {
        self.stop.cancel();
        // What it ended with is nobody's business any more.
        let _ = tokio::time::timeout(LAST_WORD, &mut self.server).await;
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The paths that every process has.
fn routes(telemetry: Telemetry) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(telemetry)
}

async fn ready(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.readiness() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    ([(CONTENT_TYPE, OPEN_METRICS)], telemetry.text()).into_response()
}

/// Connections of a listener, so many at a time and each for so long.
struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Limited {
    fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(MOST_CONNECTIONS)) }
    }
}

impl Listener for Limited {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Never closed: a place comes free.
            let Ok(place) = self.places.clone().acquire_owned().await else { continue };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    return (Timed::new(stream, place, LONGEST_CONNECTION), peer);
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to the metrics port could not be taken");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::metric;

    fn open(telemetry: &Telemetry) -> Endpoint {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Endpoint::open(listener, telemetry.clone(), Router::new()).unwrap()
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_says_that_it_lives_whether_it_is_ready_and_what_it_measures() {
        let telemetry = Telemetry::new("worker", "1");
        let endpoint = open(&telemetry);
        let at = endpoint.address();
        assert!(get(at, "/livez").await.starts_with("HTTP/1.1 200"));
        telemetry.not_ready("no coordinator answers yet");
        let answer = get(at, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("no coordinator answers yet\n"),
            "{answer}"
        );
        assert!(get(at, "/livez").await.starts_with("HTTP/1.1 200"), "being ready is not being alive");
        telemetry.ready();
        assert!(get(at, "/readyz").await.starts_with("HTTP/1.1 200"));
        telemetry.set(&metric::STEP, &[], 4.0);
        let answer = get(at, "/metrics").await;
        assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
        assert!(answer.contains("blip2_step 4.0\n") && answer.trim_end().ends_with("# EOF"), "{answer}");
        assert!(get(at, "/other").await.starts_with("HTTP/1.1 404"));
        endpoint.close().await;
        assert!(TcpStream::connect(at).await.is_err(), "it is closed");
    }

    #[tokio::test]
    async fn strangers_that_hold_connections_take_only_so_many() {
        let endpoint = open(&Telemetry::default());
        let mut held = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            held.push(TcpStream::connect(endpoint.address()).await.unwrap());
        }
        let waiting = get(endpoint.address(), "/livez");
        let mut waiting = std::pin::pin!(waiting);
        let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
        assert!(early.is_err(), "no place is free");
        drop(held);
        assert!(waiting.await.starts_with("HTTP/1.1 200"));
    }
}
