//! A worker and coordinators that come and go: it keeps its state, finds the one that leads, and loses no
//! step.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use blip2_collective::{Exchange, Limits, Member, World};
use blip2_dataset::corpus::manifest::Manifest;
use blip2_proto::transport::Transport;
use blip2_proto::v1;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_run::exit::ExitClass as _;
use blip2_run::layout::{MANIFEST, checkpoint_folder, epoch_object};
use blip2_store::Location;
use blip2_telemetry::Telemetry;
use blip2_tensors::device::seat::DeviceChoice;
use blip2_worker::step::Peers;
use blip2_worker::{
    BatchRange, NamedState, TrainState, WorkerConfig, WorkerEnd, WorkerOptions, config_hash, start_loader,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::small;

const PATIENCE: Duration = Duration::from_secs(50);

/// One session as a coordinator sees it.
struct Session {
    incoming: Streaming<v1::WorkerMessage>,
    outgoing: mpsc::Sender<Result<v1::CoordinatorMessage, Status>>,
}

impl Session {
    async fn say(&self, message: ToWorker) {
        let message = v1::CoordinatorMessage { kind: Some(message) };
        self.outgoing.send(Ok(message)).await.expect("the worker listens");
    }

    /// The next message that is not a heartbeat.
    async fn hear(&mut self) -> FromWorker {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.incoming.message());
            let message = message.await.expect("in time").expect("no error").expect("the session is open");
            match message.kind.expect("a kind") {
                FromWorker::Heartbeat(_) => {}
                other => return other,
            }
        }
    }

    async fn hello(&mut self) -> v1::Hello {
        match self.hear().await {
            FromWorker::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    async fn done(&mut self, step: u64) -> v1::StepDone {
        match self.hear().await {
            FromWorker::StepDone(done) if done.step == step => done,
            other => panic!("{other:?}"),
        }
    }

    async fn written(&mut self) -> v1::PartWritten {
        match self.hear().await {
            FromWorker::PartWritten(written) => written,
            other => panic!("{other:?}"),
        }
    }
}

/// A coordinator that does what the test says.
struct Fake {
    url: String,
    sessions: mpsc::Receiver<Session>,
    server: JoinHandle<()>,
}

struct Service(mpsc::Sender<Session>);

#[tonic::async_trait]
impl Coordinator for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (outgoing, messages) = mpsc::channel(16);
        let session = Session { incoming: request.into_inner(), outgoing };
        self.0.send(session).await.map_err(|_| Status::unavailable("gone"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        Ok(Response::new(v1::StatusReply::default()))
    }

    async fn stop(&self, _: Request<v1::StopRequest>) -> Result<Response<v1::StopReply>, Status> {
        Ok(Response::new(v1::StopReply::default()))
    }
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (opened, sessions) = mpsc::channel(4);
        let transport = Transport::plain();
        let serving = transport
            .server()
            .add_service(CoordinatorServer::new(Service(opened)))
            .serve_with_incoming(transport.listen(listener));
        let server = tokio::spawn(async move { serving.await.expect("serves") });
        Self { url, sessions, server }
    }

    async fn session(&mut self) -> Session {
        let session = tokio::time::timeout(PATIENCE, self.sessions.recv());
        session.await.expect("in time").expect("the server runs")
    }

    async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

/// A run with two steps of each stage in a temporary folder.
struct Run {
    folder: tempfile::TempDir,
    config: WorkerConfig,
    manifest: Manifest,
}

impl Run {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = small::config(2, 4);
        let manifest = Manifest::open(&config.data.train, &config.data.columns).await.expect("the corpus");
        let run = Self { folder, config, manifest };
        let stored = run.manifest.to_parquet().expect("encodes");
        run.root().join(MANIFEST).put(stored).await.expect("written");
        run
    }

    fn root(&self) -> Location {
        Location::parse(self.folder.path().to_str().expect("utf-8")).expect("a local path")
    }

    fn welcome(&self, member_id: u32, epoch: u64) -> ToWorker {
        ToWorker::Welcome(v1::Welcome {
            member_id,
            run_id: "run".into(),
            run_root: self.root().to_string(),
            config_toml: toml::to_string(&self.config).expect("encodes"),
            config_hash: config_hash(&self.config),
            manifest_hash: self.manifest.digest().to_owned(),
            heartbeat_ms: 100,
            step_deadline_ms: 60_000,
            epoch,
        })
    }

    fn assignment(&self, member_id: u32, address: &str, epoch: u64, step: u64) -> v1::Assignment {
        let member = v1::MemberSlots {
            member_id,
            exchange_address: address.into(),
            first_slot: 0,
            slot_count: self.config.train.slots,
        };
        // Nobody serves a state there: a worker that wanted a copy would fail.
        let state = v1::assignment::State::Peer("127.0.0.1:1".into());
        let ledger = Some(v1::Ledger { step, ..v1::Ledger::default() });
        v1::Assignment { epoch, members: vec![member], step, state: Some(state), ledger }
    }

    async fn epoch(&self, epoch: u64, coordinator: &str, address: &str) {
        let content = format!(
            r#"{{"epoch": {epoch}, "coordinator": "{coordinator}", "address": "{address}", "step": 0, "members": []}}"#
        );
        epoch_object(&self.root(), epoch).put(content.into()).await.expect("written");
    }

    async fn part(&self, written: &v1::PartWritten) -> NamedState {
        let object = checkpoint_folder(&self.root(), &written.checkpoint).join(&written.part);
        let content = object.read().await.expect("readable").expect("there");
        assert_eq!(content.len() as u64, written.length);
        assert_eq!(blake3::hash(&content).to_hex().as_str(), written.blake3);
        NamedState::decode("test", &[content]).expect("a state")
    }

    /// The digests after two, three and four steps without a fault, and the coverage of every step.
    fn reference(&self, runtime: tokio::runtime::Handle) -> (Vec<String>, Vec<v1::Coverage>) {
        let config = &self.config;
        let exchange = runtime.block_on(exchange());
        let slots = 0..config.train.slots;
        let member = Member { id: 0, address: exchange.local_addr().to_string(), slots: slots.clone() };
        let world = World { epoch: 1, rank: 0, members: vec![member] };
        exchange.set_world(world.clone());
        let frozen = config.frozen_models().expect("the tiny models");
        let device = frozen.device.clone().autodiff();
        let mut state = TrainState::fresh(config, frozen.sizes, &device).expect("initialised");
        let (mut digests, mut coverage, mut step) = (Vec::new(), Vec::new(), 0);
        for stage in config.trained_stages() {
            let (number, steps) = (stage.number, stage.settings.steps);
            if state.stage.number != number {
                state = state.enter(stage.clone(), config, frozen.sizes, &device).expect("the next stage");
            }
            let range = BatchRange { stage, first_step: 0, slots: slots.clone() };
            let manifest = Arc::new(self.manifest.clone());
            let loader = start_loader(config, &frozen, manifest, runtime.clone(), range).expect("starts");
            for stage_step in 0..steps {
                let batch = loader.next(PATIENCE).expect("a batch");
                let peers =
                    Peers { exchange: &exchange, runtime: &runtime, world: &world, step, deadline: PATIENCE };
                let mut gradient =
                    frozen.gradient(&mut state, &peers, stage_step, &batch).expect("a gradient");
                frozen.apply(&mut state, stage_step, &mut gradient).expect("applied");
                step += 1;
                let used = batch.coverage();
                let digest = used.digest.to_le_bytes().to_vec();
                coverage.push(v1::Coverage { stage: number, samples: used.samples, digest });
                if step >= 2 {
                    digests.push(digest_of(&state));
                }
            }
        }
        runtime.block_on(exchange.shutdown());
        (digests, coverage)
    }
}

/// As [`NamedState::digest`], of a state in memory.
fn digest_of(state: &TrainState) -> String {
    let mut tensors: Vec<_> = state.layout.tensors().iter().collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hasher = blake3::Hasher::new();
    for tensor in tensors {
        hasher.update(tensor.name.as_bytes()).update(&[0]);
        for dimension in &tensor.shape {
            hasher.update(&(*dimension as u64).to_le_bytes());
        }
        for value in &state.parameters[tensor.range()] {
            hasher.update(&value.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

async fn exchange() -> Exchange {
    let address = "127.0.0.1:0".parse().expect("an address");
    let bound = Exchange::bind(address, "token".into(), Limits::default(), Transport::plain()).await;
    bound.expect("a port")
}

fn options(coordinator: &Fake) -> WorkerOptions {
    WorkerOptions {
        coordinators: vec![coordinator.url.clone()],
        listen: "127.0.0.1:0".parse().expect("an address"),
        advertise: None,
        token: "token".into(),
        name: "w0".into(),
        binary: "test".into(),
        config_hash: String::new(),
        device: DeviceChoice::default(),
        join_timeout: PATIENCE,
        reconnect_timeout: PATIENCE,
        transport: Transport::plain(),
        on_listening: None,
        on_standing: None,
        telemetry: Telemetry::default(),
    }
}

fn commit(epoch: u64, step: u64, save_checkpoint: &str) -> ToWorker {
    let save_checkpoint = save_checkpoint.into();
    ToWorker::Commit(v1::Commit { epoch, step, save_checkpoint, part_count: 1, ..v1::Commit::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_follows_its_run_from_coordinator_to_coordinator() {
    let run = Run::new().await;
    let mut first = Fake::start().await;
    let worker = tokio::spawn(blip2_worker::run(options(&first), std::future::pending()));
    let mut coverage = Vec::new();

    // The first coordinator dies while a step is under way whose commit the worker never hears of.
    let mut session = first.session().await;
    let hello = session.hello().await;
    assert_eq!((hello.run_id.as_str(), hello.epoch, hello.holds), ("", 0, None));
    let address = hello.exchange_address;
    session.say(run.welcome(0, 1)).await;
    assert!(matches!(session.hear().await, FromWorker::Ready(_)));
    let fresh = Some(v1::assignment::State::Fresh(v1::Fresh {}));
    let assignment = v1::Assignment { state: fresh, ..run.assignment(0, &address, 2, 0) };
    session.say(ToWorker::Assignment(assignment)).await;
    coverage.push(session.done(0).await.coverage.expect("said"));
    session.say(commit(2, 0, "")).await;
    coverage.push(session.done(1).await.coverage.expect("said"));
    drop(session);
    first.stop().await;

    // The second one, of which the worker knows through the store alone, stands by and then leads.
    let mut second = Fake::start().await;
    run.epoch(1, "first", "").await;
    run.epoch(3, "second", &second.url).await;
    let session = second.session().await;
    let refused = v1::Refused {
        code: v1::RefusalCode::RefusalStandby.into(),
        reason: "stands by".into(),
        ..v1::Refused::default()
    };
    session.say(ToWorker::Refused(refused)).await;
    drop(session);
    let mut session = second.session().await;
    let hello = session.hello().await;
    assert_eq!((hello.run_id.as_str(), hello.epoch, hello.holds), ("run", 2, Some(1)));
    assert_eq!(hello.ledger.expect("told").step, 1);
    session.say(run.welcome(7, 3)).await;
    assert!(matches!(session.hear().await, FromWorker::Ready(_)));
    // Step 1 was committed: the pending gradient leads to its state.
    session.say(ToWorker::Assignment(run.assignment(7, &address, 4, 2))).await;
    coverage.push(session.done(2).await.coverage.expect("said"));
    // The end of a stage can still be saved though a step of the next one is under way.
    session.say(commit(4, 1, "00000002-000004")).await;
    let end_of_first = run.part(&session.written().await).await;
    session.say(commit(4, 2, "00000003-000004")).await;
    let begin_of_second = match (session.hear().await, session.hear().await) {
        (FromWorker::PartWritten(written), FromWorker::StepDone(done))
        | (FromWorker::StepDone(done), FromWorker::PartWritten(written)) => {
            coverage.push(done.coverage.expect("said"));
            run.part(&written).await
        }
        other => panic!("{other:?}"),
    };

    // It hangs: its session stays open, and another one leads.
    let mut third = Fake::start().await;
    run.epoch(4, "second", &second.url).await;
    run.epoch(5, "third", &third.url).await;
    let mut other = third.session().await;
    let hello = other.hello().await;
    assert_eq!((hello.epoch, hello.holds), (4, Some(3)));
    other.say(run.welcome(1, 5)).await;
    assert!(matches!(other.hear().await, FromWorker::Ready(_)));
    other.say(ToWorker::Assignment(run.assignment(1, &address, 6, 4))).await;
    // All steps are done: what is left is to save.
    other.say(commit(6, 3, "00000004-000006")).await;
    let last = run.part(&other.written().await).await;
    let stop = v1::Stop { kind: v1::StopKind::StopDone.into(), ..v1::Stop::default() };
    other.say(ToWorker::Stop(stop)).await;
    let ended = tokio::time::timeout(PATIENCE, worker).await.expect("in time").expect("no panic");
    assert_eq!(ended.expect("ended well"), WorkerEnd::Done);
    drop(session);
    second.stop().await;
    third.stop().await;

    let handle = tokio::runtime::Handle::current();
    let (digests, used) = std::thread::scope(|scope| {
        scope.spawn(|| run.reference(handle)).join().expect("the run without a fault")
    });
    assert_eq!([end_of_first.digest(), begin_of_second.digest(), last.digest()], digests[..]);
    assert_eq!(coverage, used);
}

#[tokio::test]
async fn a_worker_asked_to_leave_while_it_has_no_coordinator_ends_at_once_and_says_why() {
    let coordinator = Fake::start().await;
    let options = options(&coordinator);
    coordinator.stop().await;
    let asked = tokio::time::sleep(Duration::from_millis(300));
    let error = blip2_worker::run(options, asked).await.expect_err("it has no coordinator").to_string();
    assert!(error.contains("asked to leave"), "{error}");
}

#[tokio::test]
async fn a_worker_that_is_refused_for_good_says_why() {
    let mut coordinator = Fake::start().await;
    let worker = tokio::spawn(blip2_worker::run(options(&coordinator), std::future::pending()));
    let mut session = coordinator.session().await;
    assert_eq!(session.hello().await.token, "token");
    let refused = v1::Refused {
        code: v1::RefusalCode::RefusalBinary.into(),
        reason: "its executable is another".into(),
        ..v1::Refused::default()
    };
    session.say(ToWorker::Refused(refused)).await;
    let error = worker.await.expect("no panic").expect_err("refused");
    assert_eq!(error.exit().code(), 4);
    assert!(error.to_string().contains("its executable is another"), "{error}");
    coordinator.stop().await;
}
