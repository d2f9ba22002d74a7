//! The coordinator's server with model workers over loopback and a run's folder on disk.

use std::time::Duration;

use blip2_collective::Transport;
use blip2_coordinator::{
    Catalogue, CheckpointSettings, CommittedStep, CoordinatorOptions, CoordinatorSettings, Epochs, Outcome,
    RunSpec, run,
};
use blip2_dataset::{Location, QuarantineList};
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{
    Assignment, Coverage, Hello, NamedValue, PartWritten, Quarantined, Ready, RefusalCode, StatusReply,
    StatusRequest, StepDone, StopKind, WorkerMessage,
};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

const SLOTS: u32 = 4;

struct Run {
    address: String,
    root: Location,
    stop: oneshot::Sender<()>,
    coordinator: JoinHandle<blip2_coordinator::Result<Outcome>>,
    commits: mpsc::Receiver<CommittedStep>,
}

fn spec(root: &Location) -> RunSpec {
    RunSpec {
        run_id: "run".into(),
        run_root: root.clone(),
        config_toml: "[train]".into(),
        config_hash: "cafe".into(),
        manifest_hash: "beef".into(),
        binary: "0.1.0 abc".into(),
        token: "secret".into(),
        slots: SLOTS,
        stage_steps: vec![4, 2],
        stage_batch: vec![64, 64],
        resume: None,
        max_quarantined_share: 0.5,
    }
}

async fn start(spec: RunSpec, workers: u32) -> Run {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let (stop, stopped) = oneshot::channel::<()>();
    let (send_commits, commits) = mpsc::channel(100);
    let settings = CoordinatorSettings { workers, join_timeout_s: 20.0, ..CoordinatorSettings::default() };
    let checkpoints = CheckpointSettings { every_steps: 3, keep: 1, ..CheckpointSettings::default() };
    let root = spec.run_root.clone();
    let status = watch::Sender::new(StatusReply::default());
    let advertise = address.clone();
    let options = CoordinatorOptions {
        spec,
        settings,
        checkpoints,
        advertise,
        transport: Transport::plain(),
        after: None,
        status,
        commits: send_commits,
    };
    let shutdown = async {
        // Dropping the sender is no request to stop.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let coordinator = tokio::spawn(run(listener, shutdown, options));
    Run { address, root, stop, coordinator, commits }
}

/// What a model worker does out of the ordinary.
#[derive(Clone, Copy, PartialEq)]
enum Habit {
    None,
    /// Hangs up instead of reporting this step.
    DiesAt(u64),
    /// Reports this step late, after a signal.
    Slow(Duration),
}

fn hello(name: &str) -> Hello {
    Hello {
        token: "secret".into(),
        binary: "0.1.0 abc".into(),
        exchange_address: format!("{name}:1"),
        name: name.into(),
        ..Hello::default()
    }
}

/// Works until it is told to stop, refused, or dies; returns the last message.
async fn work(address: String, root: Location, hello: Hello, habit: Habit) -> Option<ToWorker> {
    let mut client = CoordinatorClient::connect(address).await.expect("it listens");
    let (outgoing, messages) = mpsc::channel(16);
    let say = async |kind| outgoing.send(WorkerMessage { kind: Some(kind) }).await;
    say(FromWorker::Hello(hello)).await.expect("an empty channel");
    let mut incoming = client.session(ReceiverStream::new(messages)).await.expect("a session").into_inner();
    let mut id = u32::MAX;
    let mut world = Assignment::default();
    while let Some(Ok(message)) = incoming.next().await {
        let step = match message.kind.expect("a kind") {
            ToWorker::Assignment(assignment) => {
                world = assignment;
                world.step
            }
            ToWorker::Commit(commit) => {
                if !commit.save_checkpoint.is_empty() {
                    let part = format!("part-{}", commit.part_index);
                    let content = Bytes::from(format!("state {}", commit.step + 1));
                    let object = root.join("checkpoints").join(&commit.save_checkpoint).join(&part);
                    let (length, blake3) =
                        (content.len() as u64, blake3::hash(&content).to_hex().to_string());
                    object.put(content).await.expect("a local folder");
                    let checkpoint = commit.save_checkpoint;
                    let written = PartWritten { checkpoint, part, length, blake3, ..PartWritten::default() };
                    say(FromWorker::PartWritten(written)).await.expect("an open stream");
                }
                commit.step + 1
            }
            last @ (ToWorker::Stop(_) | ToWorker::Refused(_)) => return Some(last),
            ToWorker::Welcome(welcome) => {
                id = welcome.member_id;
                say(FromWorker::Ready(Ready {})).await.expect("an open stream");
                continue;
            }
            ToWorker::Abort(_) => continue,
        };
        match habit {
            Habit::DiesAt(at) if at == step => return None,
            Habit::Slow(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        let quarantined = Quarantined { reason: "no text".into(), stage: 1, ..Quarantined::default() };
        let done = StepDone {
            epoch: world.epoch,
            step,
            values: vec![NamedValue { name: "loss".into(), value: 1.0 / (step + 1) as f64 }],
            samples: 64 / world.members.len() as u64,
            quarantined: if step == 0 { vec![quarantined] } else { Vec::new() },
            coverage: Some(used(&world, id, step)),
            ..StepDone::default()
        };
        if say(FromWorker::StepDone(done)).await.is_err() {
            return None;
        }
    }
    None
}

/// What a member's slots use of a step.
fn used(world: &Assignment, id: u32, step: u64) -> Coverage {
    let own = world.members.iter().find(|member| member.member_id == id).expect("a member");
    let samples = 16 * u64::from(own.slot_count);
    Coverage {
        stage: if step < 4 { 1 } else { 2 },
        samples,
        digest: (u128::from(samples) * u128::from(step + 1)).to_le_bytes().to_vec(),
    }
}

fn folder() -> (tempfile::TempDir, Location) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
    (folder, root)
}

fn stop_kind(message: Option<ToWorker>) -> Option<StopKind> {
    if let Some(ToWorker::Stop(stop)) = message { Some(stop.kind()) } else { None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_survives_the_loss_of_a_worker_and_ends_with_its_checkpoints() {
    let (_folder, root) = folder();
    let mut run = start(spec(&root), 2).await;
    let stranger = Hello { token: "guess!".into(), ..hello("stranger") };
    let refused = work(run.address.clone(), root.clone(), stranger, Habit::None).await;
    assert!(
        matches!(refused, Some(ToWorker::Refused(refused)) if refused.code() == RefusalCode::RefusalToken)
    );
    let workers = [Habit::None, Habit::DiesAt(2)]
        .into_iter()
        .zip(["a", "b"])
        .map(|(habit, name)| tokio::spawn(work(run.address.clone(), root.clone(), hello(name), habit)));
    let workers: Vec<_> = workers.collect();
    let mut ends = Vec::new();
    for worker in workers {
        ends.push(worker.await.expect("no panic"));
    }
    assert_eq!(ends.pop(), Some(None));
    assert_eq!(stop_kind(ends.pop().flatten()), Some(StopKind::StopDone));
    let outcome = run.coordinator.await.expect("no panic").expect("it ran");
    let Outcome::Done { checkpoint } = outcome else { panic!("{outcome:?}") };

    let mut steps = Vec::new();
    while let Some(step) = run.commits.recv().await {
        steps.push((step.step, step.stage, step.samples));
    }
    assert_eq!(steps, [(0, 1, 64), (1, 1, 64), (2, 1, 64), (3, 1, 64), (4, 2, 64), (5, 2, 64)]);
    let catalogue = Catalogue::new(&run.root);
    assert_eq!(catalogue.verify(&checkpoint).await.expect("intact").step, 6);
    let listed = catalogue.list().await.expect("listed");
    let kept: Vec<u64> = listed.valid.iter().map(|record| record.step).collect();
    assert_eq!(kept, [4, 6], "the end of stage 1 is kept, step 3 is retired");
    let rows = root.join("quarantine.parquet").read().await.expect("read").expect("written");
    assert_eq!(QuarantineList::from_parquet(rows).expect("a list").len(), 1);
    let epochs = Epochs::new(&root, "test".into(), String::new());
    let last = epochs.newest_record().await.expect("read").expect("there");
    assert_eq!((last.epoch, last.step, last.end.as_deref()), (4, 6, Some("done")));
    assert_eq!(last.address, run.address);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_run_is_saved_and_continued() {
    let (_folder, root) = folder();
    let mut run = start(spec(&root), 1).await;
    let slow = Habit::Slow(Duration::from_millis(30));
    let worker = tokio::spawn(work(run.address.clone(), root.clone(), hello("a"), slow));
    run.commits.recv().await.expect("a first step");
    let status = CoordinatorClient::connect(run.address.clone())
        .await
        .expect("it listens")
        .status(StatusRequest::default())
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!((status.state.as_str(), status.total_steps, status.members.len()), ("running", 6, 1));
    run.stop.send(()).expect("it runs");
    assert_eq!(stop_kind(worker.await.expect("no panic")), Some(StopKind::StopInterrupted));
    let outcome = run.coordinator.await.expect("no panic").expect("it ran");
    let Outcome::Interrupted { checkpoint: Some(name) } = outcome else { panic!("{outcome:?}") };

    let (resume, damaged) = Catalogue::new(&root).latest_valid().await.expect("one");
    let resume = resume.expect("one");
    assert_eq!((&resume.name, damaged.len()), (&name, 0));
    let start_step = resume.step;
    let mut again = start(RunSpec { resume: Some(resume), ..spec(&root) }, 1).await;
    let worker = tokio::spawn(work(again.address.clone(), root.clone(), hello("a"), Habit::None));
    assert_eq!(again.commits.recv().await.expect("a step").step, start_step);
    assert_eq!(stop_kind(worker.await.expect("no panic")), Some(StopKind::StopDone));
    assert!(matches!(again.coordinator.await.expect("no panic"), Ok(Outcome::Done { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_coordinator_fences_off_the_first() {
    let (_folder, root) = folder();
    let mut run = start(spec(&root), 1).await;
    let slow = Habit::Slow(Duration::from_millis(30));
    let worker = tokio::spawn(work(run.address.clone(), root.clone(), hello("a"), slow));
    run.commits.recv().await.expect("a first step");
    Epochs::new(&root, "second".into(), String::new()).begin(1).await.expect("free");
    // No word of farewell: the worker shall look for the new coordinator.
    assert_eq!(worker.await.expect("no panic"), None);
    let outcome = run.coordinator.await.expect("no panic").expect("it ran");
    assert!(
        matches!(&outcome, Outcome::Failed { exit_code: 4, message } if message.contains("fenced")),
        "{outcome:?}"
    );
    assert!(Catalogue::new(&root).list().await.expect("listed").valid.is_empty());
}
