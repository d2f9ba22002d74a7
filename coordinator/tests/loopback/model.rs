//! Model workers, and a coordinator to work for.

use std::time::Duration;

use blip2_coordinator::{
    CheckpointSettings, CoordinatorOptions, CoordinatorSettings, Keeping, LossRise, NonFinitePolicy, Outcome,
    RunSpec, run,
};
use blip2_proto::token::with_token;
use blip2_proto::transport::Transport;
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{
    Assignment, CommittedStep, Coverage, Hello, Ledger, NamedValue, PartWritten, Quarantined, Ready,
    RefusalCode, StatusReply, StepDone, StopKind, WorkerMessage,
};
use blip2_run::commit::ShardRecord;
use blip2_run::layout::checkpoint_folder;
use blip2_run::schedule::{Schedule, Stage};
use blip2_store::Location;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

const SLOTS: u32 = 4;
/// Between two attempts of a worker to find its coordinator.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Run {
    pub(crate) address: String,
    pub(crate) root: Location,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) coordinator: JoinHandle<blip2_coordinator::Result<Outcome>>,
    pub(crate) commits: mpsc::Receiver<CommittedStep>,
}

/// Two stages of these steps, with a batch of 64.
pub(crate) fn stages(steps: [u64; 2]) -> Schedule {
    let stage =
        |(name, steps): (&str, u64)| Stage { name: name.into(), task: "contrast".into(), steps, batch: 64 };
    ["first", "second"].into_iter().zip(steps).map(stage).collect()
}

pub(crate) fn spec(root: &Location) -> RunSpec {
    RunSpec {
        run_id: "run".into(),
        run_root: root.clone(),
        config_toml: "[train]".into(),
        config_hash: "cafe".into(),
        manifest_hash: "beef".into(),
        binary: "0.1.0 abc".into(),
        token: "secret".into(),
        slots: SLOTS,
        schedule: stages([4, 2]),
        resume: None,
        max_quarantined_share: 0.5,
        not_downloaded: 0,
        non_finite: NonFinitePolicy::default(),
        loss_rise: LossRise::default(),
        earlier: Default::default(),
    }
}

pub(crate) fn settings(workers: u32) -> CoordinatorSettings {
    CoordinatorSettings {
        workers,
        join_timeout_s: 20.0,
        takeover_after_s: 1.0,
        ..CoordinatorSettings::default()
    }
}

pub(crate) async fn start(spec: RunSpec, workers: u32) -> Run {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    start_on(listener, spec, workers, None)
}

/// Starts a coordinator that takes over `after` an epoch.
pub(crate) fn start_on(listener: TcpListener, spec: RunSpec, workers: u32, after: Option<u64>) -> Run {
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let (stop, stopped) = oneshot::channel::<()>();
    let (send_commits, commits) = mpsc::channel(1000);
    let root = spec.run_root.clone();
    let options = CoordinatorOptions {
        spec,
        settings: settings(workers),
        checkpoints: CheckpointSettings { every_steps: 3, keep: 1, ..CheckpointSettings::default() },
        advertise: address.clone(),
        transport: Transport::plain(),
        after,
        status: watch::Sender::new(StatusReply::default()),
        figures: watch::Sender::default(),
        commits: send_commits,
        keeping: Keeping::nobody(),
        on_one_machine: false,
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
pub(crate) enum Habit {
    None,
    /// Hangs up instead of reporting this step.
    DiesAt(u64),
    /// Reports every step this late.
    Slow(Duration),
}

pub(crate) fn hello(name: &str) -> Hello {
    Hello {
        token: "secret".into(),
        binary: "0.1.0 abc".into(),
        exchange_address: format!("{name}:1"),
        name: name.into(),
        ..Hello::default()
    }
}

/// Works until it is told to stop, refused, or dies; returns the last message.
pub(crate) async fn work(address: String, root: Location, hello: Hello, habit: Habit) -> Option<ToWorker> {
    Worker { root, hello, habit }.session(&address).await
}

/// Works for whichever of the coordinators leads, until it is told to stop.
pub(crate) async fn work_on(
    addresses: Vec<String>,
    root: Location,
    hello: Hello,
    habit: Habit,
) -> Option<ToWorker> {
    let mut worker = Worker { root, hello, habit };
    for address in addresses.iter().cycle() {
        match worker.session(address).await {
            Some(ToWorker::Refused(refused))
                if matches!(refused.code(), RefusalCode::RefusalStandby | RefusalCode::RefusalFenced) => {}
            Some(last) => return Some(last),
            None => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

struct Worker {
    root: Location,
    /// What it says next; what it holds is in it.
    hello: Hello,
    habit: Habit,
}

impl Worker {
    /// Works until the session ends; the last message if there was one.
    async fn session(&mut self, address: &str) -> Option<ToWorker> {
        let mut client = CoordinatorClient::connect(address.to_owned()).await.ok()?;
        let (outgoing, messages) = mpsc::channel(16);
        let say = async |kind| outgoing.send(WorkerMessage { kind: Some(kind) }).await;
        say(FromWorker::Hello(self.hello.clone())).await.expect("an empty channel");
        let opening = with_token(ReceiverStream::new(messages), &self.hello.token);
        let mut incoming = client.session(opening).await.ok()?.into_inner();
        let mut id = u32::MAX;
        let mut world = Assignment::default();
        while let Some(Ok(message)) = incoming.next().await {
            let step = match message.kind.expect("a kind") {
                ToWorker::Welcome(welcome) => {
                    id = welcome.member_id;
                    (self.hello.run_id, self.hello.epoch) = (welcome.run_id, welcome.epoch);
                    say(FromWorker::Ready(Ready::default())).await.ok()?;
                    continue;
                }
                ToWorker::Assignment(assignment) => {
                    world = assignment;
                    self.hello.epoch = world.epoch;
                    self.hello.holds = Some(world.step);
                    self.hello.ledger.clone_from(&world.ledger);
                    world.step
                }
                ToWorker::Commit(commit) => {
                    if !commit.save_checkpoint.is_empty() {
                        let part = self.store(&commit).await;
                        say(FromWorker::PartWritten(part)).await.ok()?;
                    }
                    let (step, coverage) = (commit.step + 1, commit.coverage);
                    self.hello.holds = Some(step);
                    self.hello.ledger =
                        Some(Ledger { step, coverage, quarantined: commit.quarantined, ..Ledger::default() });
                    step
                }
                last @ (ToWorker::Stop(_) | ToWorker::Refused(_)) => return Some(last),
                ToWorker::Abort(_) => continue,
            };
            match self.habit {
                Habit::DiesAt(at) if at == step => return None,
                Habit::Slow(time) => tokio::time::sleep(time).await,
                _ => {}
            }
            say(FromWorker::StepDone(done(&world, id, step))).await.ok()?;
        }
        None
    }

    async fn store(&self, commit: &blip2_proto::v1::Commit) -> PartWritten {
        let part = format!("part-{}", commit.part_index);
        let content = Bytes::from(format!("state {}", commit.step + 1));
        let object = checkpoint_folder(&self.root, &commit.save_checkpoint).join(&part);
        let ShardRecord { length, blake3, .. } = ShardRecord::of(&part, &content);
        object.put(content).await.expect("a store that works");
        let checkpoint = commit.save_checkpoint.clone();
        PartWritten { checkpoint, part, length, blake3, ..PartWritten::default() }
    }
}

fn done(world: &Assignment, id: u32, step: u64) -> StepDone {
    let quarantined = Quarantined { reason: "no text".into(), stage: 1, ..Quarantined::default() };
    StepDone {
        epoch: world.epoch,
        step,
        values: vec![NamedValue { name: "loss".into(), value: 1.0 / (step + 1) as f64 }],
        samples: 64 / world.members.len() as u64,
        quarantined: if step == 0 { vec![quarantined] } else { Vec::new() },
        coverage: Some(used(world, id, step)),
        ..StepDone::default()
    }
}

/// What a member's slots use of a step; the tests have stages of 4 and 2 steps, or one of many.
fn used(world: &Assignment, id: u32, step: u64) -> Coverage {
    let own = world.members.iter().find(|member| member.member_id == id).expect("a member");
    let samples = 16 * u64::from(own.slot_count);
    Coverage {
        stage: if step < 4 { 1 } else { 2 },
        samples,
        digest: (u128::from(samples) * u128::from(step + 1)).to_le_bytes().to_vec(),
    }
}

pub(crate) fn folder() -> (tempfile::TempDir, Location) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
    (folder, root)
}

pub(crate) fn stop_kind(message: Option<ToWorker>) -> Option<StopKind> {
    if let Some(ToWorker::Stop(stop)) = message { Some(stop.kind()) } else { None }
}
