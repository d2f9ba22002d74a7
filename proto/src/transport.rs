//! How processes of a run are connected: the one place that decides about sockets, HTTP/2 and TLS.

mod address;
mod causes;
mod descriptors;
mod failure;
mod gate;
mod guarded;
mod own_host;
mod socket;
mod tls;

use std::io;
use std::time::Duration;

use futures::stream::BoxStream;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::TcpListener;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Server};

pub use address::{AddressError, advertised, bind, is_loopback, listening, with_port};
pub use descriptors::raise_descriptor_limit;
pub use failure::ConnectError;
pub use gate::{Connection, Gated};
pub use guarded::{Guarded, authenticate, is_authenticated};
pub use own_host::own_host;
pub use tls::{TlsError, TlsFiles};

use causes::with_causes;

/// Flow-control windows of a stream and of a connection that carry control messages.
const CONTROL_WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// Flow-control window of a stream: what a peer may send ahead of its reader. Four chunks: enough for 10
/// Gbit/s and 3 ms, and what waits stays in the cache.
const STREAM_WINDOW: u32 = 4 << 20;
/// Flow-control window of a connection.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Largest HTTP/2 frame: a chunk and what is in front of it.
const FRAME: u32 = 2 << 20;
/// Calls in progress on one connection; more wait for their turn.
const STREAMS: u32 = 1024;
/// Bytes of a call's metadata.
const HEADERS: u32 = 16 << 10;
/// Idle time after which the process at the other end is probed, and how long it may take to answer. A host
/// that is gone is noticed by the kernel long before.
const PROBE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));
/// The same for a connection that carries little, where nothing large can be ahead of the answer.
const CLOSE_PROBE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
/// How long a client that has connected may take for its TLS handshake; the gate's own deadline is for all of
/// it.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How this process listens and connects. Cheap to clone; the default is plain.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    tls: Option<Tls>,
}

#[derive(Debug, Clone)]
struct Tls {
    server: Server,
    client: ClientTlsConfig,
}

impl Transport {
    /// Without encryption: the token alone keeps strangers out.
    pub fn plain() -> Self {
        Self { tls: None }
    }

    /// TLS in which both ends show a certificate of one authority.
    ///
    /// # Errors
    /// A file cannot be read, holds no such thing, or the key is not the certificate's.
    pub fn mutual_tls(files: &TlsFiles) -> Result<Self, TlsError> {
        let (server, client) = files.load()?;
        let server = base().tls_config(server.timeout(HANDSHAKE)).map_err(|error| files.unusable(&error))?;
        Ok(Self { tls: Some(Tls { server, client }) })
    }

    /// What the configuration says: [`Transport::plain`] when no file is named, mutual TLS when all are.
    ///
    /// # Errors
    /// As for [`Transport::mutual_tls`]; also when some files are named and others are not.
    pub fn of(files: &TlsFiles) -> Result<Self, TlsError> {
        if files.is_empty() { Ok(Self::plain()) } else { Self::mutual_tls(files) }
    }

    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// A gRPC server with this transport's windows, limits, probes and TLS, for the large buffers of members.
    pub fn server(&self) -> Server {
        self.tls.as_ref().map_or_else(base, |tls| tls.server.clone())
    }

    /// The same for a server of control messages, which lets less be sent ahead.
    pub fn control_server(&self) -> Server {
        let (stream, connection) = CONTROL_WINDOWS;
        self.server()
            .initial_stream_window_size(stream)
            .initial_connection_window_size(connection)
            .max_frame_size(None)
    }

    /// The connections that arrive at `listener`, for `serve_with_incoming`. A failed accept ends one
    /// connection, not the server. Over each the run's token must be shown in time, as services behind
    /// [`Guarded`] see to; of those over which it was not, there are few at a time.
    pub fn listen(&self, listener: TcpListener) -> BoxStream<'static, io::Result<Gated>> {
        socket::accepted(listener)
    }

    /// Connects to `host:port`, or to a URL of it, within `timeout`. The channel connects again when its
    /// connection breaks.
    ///
    /// # Errors
    /// What went wrong, for people to read.
    pub async fn connect(&self, address: &str, timeout: Duration) -> Result<Channel, String> {
        self.connect_probing(address, timeout, PROBE).await.map_err(|error| error.reason)
    }

    /// Connects like [`Transport::connect`] for a connection that carries little: it ends within a few
    /// seconds when the process at the other end stands still.
    ///
    /// # Errors
    /// What went wrong, and whether certificates are why.
    pub async fn connect_watched(&self, address: &str, timeout: Duration) -> Result<Channel, ConnectError> {
        self.connect_probing(address, timeout, CLOSE_PROBE).await
    }

    async fn connect_probing(
        &self,
        address: &str,
        timeout: Duration,
        probe: (Duration, Duration),
    ) -> Result<Channel, ConnectError> {
        let endpoint = self.endpoint(address)?.connect_timeout(timeout);
        let endpoint = endpoint.http2_keep_alive_interval(probe.0).keep_alive_timeout(probe.1);
        let connecting = endpoint.connect_with_connector(connector(timeout));
        match tokio::time::timeout(timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| ConnectError::of(&error)),
            Err(_) => Err(format!("no connection within {:.1} s", timeout.as_secs_f64()).into()),
        }
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, ConnectError> {
        let (scheme, authority) = match address.split_once("://") {
            Some((scheme @ ("http" | "https"), authority)) => (scheme, authority),
            Some((scheme, _)) => return Err(format!("{address}: {scheme} is neither http nor https").into()),
            None => ("", address),
        };
        if scheme == "https" && self.tls.is_none() {
            let reason = format!("{address}: name the TLS files (ca, cert, key) to connect to https");
            return Err(ConnectError { reason, untrusted: true });
        }
        let used = if self.tls.is_some() { "https" } else { "http" };
        let authority = address::authority(authority)?;
        let endpoint = Endpoint::from_shared(format!("{used}://{authority}"))
            .map_err(|error| format!("{address} is no address: {error}"))?
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .http2_max_header_list_size(HEADERS);
        match &self.tls {
            None => Ok(endpoint),
            Some(tls) => endpoint.tls_config(tls.client.clone()).map_err(|error| with_causes(&error).into()),
        }
    }
}

fn base() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(PROBE.0))
        .http2_keepalive_timeout(Some(PROBE.1))
}

fn connector(timeout: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(timeout));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(socket::ALIVE));
    connector.set_keepalive_interval(Some(socket::ALIVE));
    connector.set_keepalive_retries(Some(socket::ALIVE_PROBES));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(socket::UNACKNOWLEDGED));
    connector
}

/// How a server's task ended though nobody stopped it, in words.
pub fn how_it_ended(ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "without a reason".into(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn addresses_that_cannot_be_used_say_why() {
        let plain = Transport::plain();
        let refused = |address: &'static str| {
            let plain = plain.clone();
            async move { plain.connect(address, SECOND).await.map(|_| ()).expect_err("no such address") }
        };
        assert!(refused("ftp://h:1").await.contains("neither http nor https"));
        assert!(refused("https://h:1").await.contains("TLS files"));
        assert!(refused("http://").await.contains("is no address"));
        assert!(refused("http://fd00::1:7100").await.contains("[fd00::1]:7100"));
        assert!(refused("127.0.0.1:1").await.contains("refused"));
    }

    #[test]
    fn no_files_are_plain_and_some_are_an_error() {
        assert!(!Transport::of(&TlsFiles::default()).expect("plain").is_encrypted());
        let some = TlsFiles { ca: "ca.pem".into(), ..TlsFiles::default() };
        let error = Transport::of(&some).expect_err("cert and key are missing").to_string();
        assert!(error.contains("cert") && error.contains("key"), "{error}");
    }
}
