//! Whoever else finds the port: nothing that arrives there stops the run.

use std::time::Duration;

use blip2_coordinator::Outcome;
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{Heartbeat, Hello, Ledger, Quarantined, StopKind, WorkerMessage};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::model::{Habit, Run, folder, hello, spec, start, stop_kind, work};

/// How many of each kind.
const STRANGERS: usize = 20;
/// More than a message may have.
const TOO_LONG: usize = 40 << 20;

fn authority(run: &Run) -> &str {
    run.address.strip_prefix("http://").expect("a URL")
}

/// Bytes that are no HTTP/2, and bytes that begin like it.
async fn noise(run: &Run) {
    for stranger in 0..STRANGERS {
        let mut socket = TcpStream::connect(authority(run)).await.expect("it listens");
        let mut bytes: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        if stranger % 2 == 0 {
            bytes.splice(0..0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied());
        }
        // The other end may hang up before all is written.
        let _ = socket.write_all(&bytes).await;
    }
}

/// A session that says `messages` and then nothing; whether the coordinator ended it.
async fn session(run: &Run, said: Vec<FromWorker>) -> bool {
    let mut client = CoordinatorClient::connect(run.address.clone())
        .await
        .expect("it listens")
        .max_encoding_message_size(usize::MAX);
    let (outgoing, messages) = mpsc::channel(16);
    for kind in said {
        outgoing.send(WorkerMessage { kind: Some(kind) }).await.expect("room");
    }
    let Ok(session) = client.session(ReceiverStream::new(messages)).await else { return true };
    let mut incoming = session.into_inner();
    let ended = async { while let Some(Ok(_)) = incoming.next().await {} };
    tokio::time::timeout(Duration::from_secs(10), ended).await.is_ok()
}

/// Sessions of strangers that are open at a time, and calls of one connection of theirs.
const MOST_SILENT: usize = 128;
const MOST_CALLS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_never_speak_take_no_room_from_workers() {
    let (_folder, root) = folder();
    let run = start(spec(&root), 1).await;
    let mut silent = Vec::new();
    for connection in 0..STRANGERS {
        let mut client = CoordinatorClient::connect(run.address.clone()).await.expect("it listens");
        for call in 0..=MOST_CALLS {
            let (say, messages) = mpsc::channel(1);
            match client.session(ReceiverStream::new(messages)).await {
                Ok(answer) => silent.push((say, answer)),
                Err(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{connection}, {call}");
                    assert!(call == MOST_CALLS || silent.len() == MOST_SILENT, "{connection}, {call}");
                }
            }
        }
    }
    assert_eq!(silent.len(), MOST_SILENT);
    let worker = work(run.address.clone(), root.clone(), hello("w"), Habit::None).await;
    assert_eq!(stop_kind(worker), Some(StopKind::StopDone));
    assert!(matches!(run.coordinator.await.expect("no panic"), Ok(Outcome::Done { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_on_whatever_arrives_at_its_port() {
    let (_folder, root) = folder();
    let run = start(spec(&root), 1).await;
    noise(&run).await;
    let mut silent = Vec::new();
    for _ in 0..STRANGERS {
        silent.push(CoordinatorClient::connect(run.address.clone()).await.expect("it listens"));
    }
    let row = Quarantined { reason: "x".repeat(TOO_LONG), ..Quarantined::default() };
    let ledger = Some(Ledger { quarantined: vec![row], ..Ledger::default() });
    assert!(session(&run, vec![FromWorker::Hello(Hello { ledger, ..hello("long") })]).await);
    assert!(session(&run, vec![FromWorker::Heartbeat(Heartbeat {})]).await, "no introduction");
    let long_name = Hello { name: "n".repeat(1 << 20), ..hello("n") };
    assert!(session(&run, vec![FromWorker::Hello(long_name)]).await);
    let twice = vec![FromWorker::Hello(hello("twice")), FromWorker::Hello(hello("twice"))];
    assert!(session(&run, twice).await, "it introduces itself twice");
    let worker = work(run.address.clone(), root.clone(), hello("w"), Habit::None).await;
    assert_eq!(stop_kind(worker), Some(StopKind::StopDone));
    assert!(matches!(run.coordinator.await.expect("no panic"), Ok(Outcome::Done { .. })));
}
