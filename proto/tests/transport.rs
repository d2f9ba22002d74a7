//! Who may connect to whom, over real sockets and certificates made for the test.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

use std::path::Path;
use std::time::Duration;

use blip2_proto::transport::{TlsError, TlsFiles, Transport};
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use blip2_proto::v1::{
    CoordinatorMessage, StatusReply, StatusRequest, StopReply, StopRequest, WorkerMessage,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, Streaming};

const DEADLINE: Duration = Duration::from_secs(10);

/// Writes an authority's certificate and a certificate signed by it, all under names that start with `name`.
fn certificates(folder: &Path, name: &str) -> TlsFiles {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let authority_certificate = authority.self_signed(&authority_key).expect("signed");
    let issuer = Issuer::from_params(&authority, &authority_key);
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(["blip2".to_owned()]).expect("a name");
    let certificate = own.signed_by(&key, &issuer).expect("signed");
    let write = |part: &str, text: String| {
        let path = folder.join(format!("{name}-{part}.pem"));
        std::fs::write(&path, text).expect("written");
        path
    };
    TlsFiles {
        ca: write("ca", authority_certificate.pem()),
        cert: write("cert", certificate.pem()),
        key: write("key", key.serialize_pem()),
        ..TlsFiles::default()
    }
}

/// Answers the question for the status, and nothing else.
struct Answering;

#[tonic::async_trait]
impl Coordinator for Answering {
    type SessionStream = tokio_stream::Empty<Result<CoordinatorMessage, Status>>;

    async fn session(
        &self,
        _: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("no session"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(StatusReply { state: "here".into(), ..StatusReply::default() }))
    }

    async fn stop(&self, _: Request<StopRequest>) -> Result<Response<StopReply>, Status> {
        Err(Status::unimplemented("no run"))
    }
}

/// Serves on a free port until the test ends.
async fn serve(transport: &Transport) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let serving = transport
        .control_server()
        .add_service(CoordinatorServer::new(Answering))
        .serve_with_incoming(transport.listen(listener));
    tokio::spawn(serving);
    address
}

/// Whether one who speaks the first transport is answered by a server of the second.
async fn is_answered(client: &Transport, server: &Transport) -> Result<(), String> {
    let address = serve(server).await;
    let channel = client.connect(&address, DEADLINE).await?;
    let reply = CoordinatorClient::new(channel).status(StatusRequest::default()).await;
    let reply = reply.map_err(|status| status.to_string())?;
    assert_eq!(reply.into_inner().state, "here");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_peers_with_a_certificate_of_the_same_authority_are_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = certificates(folder.path(), "ours");
    let theirs = certificates(folder.path(), "theirs");
    // Trusts our servers, but shows a certificate of another authority.
    let forged = TlsFiles { ca: ours.ca.clone(), ..theirs.clone() };
    let tls = |files: &TlsFiles| Transport::mutual_tls(files).expect("good files");
    let (ours, theirs, forged) = (tls(&ours), tls(&theirs), tls(&forged));
    let plain = Transport::plain();

    is_answered(&ours, &ours).await.expect("the same authority");
    is_answered(&plain, &plain).await.expect("no encryption");
    for (stranger, who) in [(&plain, "without"), (&theirs, "of another"), (&forged, "forged")] {
        is_answered(stranger, &ours).await.expect_err(who);
        is_answered(&ours, stranger).await.expect_err(who);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_name_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = certificates(folder.path(), "ours");
    let other = TlsFiles { server_name: "somebody-else".into(), ..files.clone() };
    let [ours, other] = [files, other].map(|files| Transport::mutual_tls(&files).expect("good files"));
    let address = serve(&ours).await;
    ours.connect(&address, DEADLINE).await.expect("its name");
    let error = other.connect(&address, DEADLINE).await.expect_err("another name");
    assert!(error.contains("certificate"), "{error}");
    // The scheme of a URL does not turn encryption off.
    ours.connect(&format!("http://{address}"), DEADLINE).await.expect("its name");
    ours.connect(&format!("https://{address}"), DEADLINE).await.expect("its name");
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_is_given_up_at_the_deadline() {
    let folder = tempfile::tempdir().expect("a folder");
    let transport = Transport::mutual_tls(&certificates(folder.path(), "ours")).expect("good files");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let error =
        transport.connect(&address, Duration::from_millis(300)).await.expect_err("nobody shakes hands");
    // The socket's timer and the one for all of it run side by side.
    let is_late =
        ["no connection within 0.3 s", "deadline has elapsed"].iter().any(|end| error.contains(end));
    assert!(is_late, "{error}");
}

#[test]
fn bad_files_are_named_with_their_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = certificates(folder.path(), "ours");
    let other = certificates(folder.path(), "theirs");
    let junk = folder.path().join("junk.pem");
    std::fs::write(&junk, "not a certificate").expect("written");
    let fails = |files: &TlsFiles, file: &Path, words: &str| {
        let error = Transport::mutual_tls(files).expect_err(words);
        assert!(matches!(&error, TlsError::File { path, .. } if path == file), "{error}");
        assert!(error.to_string().contains(words), "{error} lacks {words:?}");
    };
    let absent = folder.path().join("absent.pem");
    fails(&TlsFiles { ca: absent.clone(), ..good.clone() }, &absent, "No such file");
    fails(&TlsFiles { ca: junk.clone(), ..good.clone() }, &junk, "no certificate");
    fails(&TlsFiles { cert: junk.clone(), ..good.clone() }, &junk, "no certificate");
    fails(&TlsFiles { key: junk.clone(), ..good.clone() }, &junk, "no private key");
    fails(&TlsFiles { key: other.key.clone(), ..good.clone() }, &other.key, "not the key of");
    let nameless = TlsFiles { server_name: "two words".into(), ..good };
    assert!(matches!(Transport::mutual_tls(&nameless), Err(TlsError::ServerName { .. })));
}
