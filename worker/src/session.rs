//! A worker's life in a run: the shell around [`MemberMachine`], which does what the machine decides.

mod candidates;
mod stream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blip2_collective::{Exchange, Limits};
use blip2_proto::drill::Drill;
use blip2_proto::transport::{ConnectError, Transport, with_port};
use blip2_proto::v1;
use blip2_proto::v1::coordinator_message::Kind as FromCoordinator;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_run::epoch::EpochRecord;
use blip2_run::exit::ExitClass as _;
use blip2_run::layout::checkpoint_folder;
use blip2_store::Location;
use blip2_telemetry::Telemetry;
use blip2_telemetry::metric::{EPOCH, SESSIONS_TOTAL, STEP};
use blip2_tensors::device::seat::DeviceChoice;
use futures::future::{BoxFuture, FutureExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use self::candidates::{Candidates, Opening, other_leader};
use self::stream::Stream;
use crate::compute::{ComputeSpec, ComputeThread, Order, Report};
use crate::error::{Result, WorkerError};
use crate::member::{MemberAction, MemberEnd, MemberEvent, MemberIdentity, MemberMachine, MemberSettings};
use crate::upload::{Upload, store_part};

/// How a worker is started.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// URLs of the run's coordinators, the leading one and those that stand by, `http://host:port`. A worker
    /// that is part of a run also asks the coordinator that the run's newest membership epoch names.
    pub coordinators: Vec<String>,
    /// Where this worker listens for its peers; port 0 picks one.
    pub listen: SocketAddr,
    /// Host and port under which peers reach it, port 0 for the bound one; `None`: the bound address.
    pub advertise: Option<String>,
    /// The run's token.
    pub token: String,
    /// For logs and the status page.
    pub name: String,
    /// Identifies the executable; members of a run have the same.
    pub binary: String,
    /// Hash of the configuration this worker must find; empty: any.
    pub config_hash: String,
    /// Which device to compute on.
    pub device: DeviceChoice,
    /// How long to try to reach a first coordinator.
    pub join_timeout: Duration,
    /// How long to look for a coordinator after the session ended without a stop, with the state kept; zero:
    /// end at once.
    pub reconnect_timeout: Duration,
    /// How this worker connects to coordinators and peers, and listens to peers.
    pub transport: Transport,
    /// Told the address bound for its peers, before the coordinator is.
    pub on_listening: Option<fn(SocketAddr)>,
    /// Told where this worker stands whenever that changes.
    pub on_standing: Option<fn(&WorkerStanding)>,
    /// Where it records what it does.
    pub telemetry: Telemetry,
}

/// Where a worker stands in its run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerStanding {
    /// The run by its name; empty: no coordinator has named it yet.
    pub run_id: String,
    /// The number that the coordinator gave this worker.
    pub member: Option<u32>,
    /// The newest membership epoch known of; 0: none.
    pub epoch: u64,
    /// Committed steps behind the state held; `None`: no state is held.
    pub step: Option<u64>,
}

/// How a worker's life ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEnd {
    /// The run is done.
    Done,
    /// The run was interrupted with a checkpoint saved.
    Interrupted,
    /// This worker was released; the run continues without it.
    Released,
}

/// How often the machine is told that time passed.
const TICK: Duration = Duration::from_millis(50);
/// How often a worker looks whether another coordinator leads by now: one that hangs keeps its connections.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How long the compute thread may take once the run has ended.
const WIND_DOWN: Duration = Duration::from_secs(30);

/// Joins a run and works until it ends; `shutdown` asks it to leave.
///
/// # Errors
/// The coordinator refuses or cannot be reached, the input is bad, or the run fails.
pub async fn run(options: WorkerOptions, shutdown: impl Future<Output = ()>) -> Result<WorkerEnd> {
    let drill = Drill::from_environment().map_err(|error| WorkerError::Configuration(error.to_string()))?;
    let (limits, transport) = (Limits::default(), options.transport.clone());
    let exchange = Exchange::bind(options.listen, options.token.clone(), limits, transport).await?;
    if let Some(tell) = options.on_listening {
        tell(exchange.local_addr());
    }
    let telemetry = options.telemetry.clone();
    exchange.show_trace(move || telemetry.chrome_trace());
    let exchange = Arc::new(exchange);
    let ended = MemberDriver::new(options, exchange.clone(), drill).work(shutdown).await;
    exchange.shutdown().await;
    ended
}

/// Everything a member has while it works.
struct MemberDriver {
    coordinators: String,
    machine: MemberMachine,
    started: Instant,
    exchange: Arc<Exchange>,
    drill: Drill,
    device: DeviceChoice,
    candidates: Candidates,
    opening: Option<BoxFuture<'static, Opening>>,
    /// The last attempt failed over certificates.
    untrusted: bool,
    stream: Option<Stream>,
    /// Ends when another coordinator leads than the one of the open session.
    watch: Option<BoxFuture<'static, EpochRecord>>,
    on_standing: Option<fn(&WorkerStanding)>,
    standing: WorkerStanding,
    telemetry: Telemetry,
    /// Why it cannot do its part now, as it was told last.
    missing: Option<&'static str>,
    run_root: Option<Location>,
    compute: Option<ComputeThread>,
    uploads: JoinSet<Upload>,
    /// Why compute cannot go on.
    fault: Option<WorkerError>,
    end: Option<MemberEnd>,
}

impl MemberDriver {
    fn new(options: WorkerOptions, exchange: Arc<Exchange>, drill: Drill) -> Self {
        let bound = exchange.local_addr();
        let address = options.advertise.map(|address| with_port(&address, bound.port()));
        let address = address.unwrap_or_else(|| bound.to_string());
        let identity = MemberIdentity {
            token: options.token.clone(),
            binary: options.binary,
            exchange_address: address,
            name: options.name,
            config_hash: options.config_hash,
        };
        let settings = MemberSettings {
            join_timeout: options.join_timeout,
            reconnect_timeout: options.reconnect_timeout,
        };
        Self {
            coordinators: options.coordinators.join(", "),
            machine: MemberMachine::new(identity, settings),
            started: Instant::now(),
            exchange,
            drill,
            device: options.device,
            candidates: Candidates::new(options.coordinators, options.token, options.transport),
            opening: None,
            untrusted: false,
            stream: None,
            watch: None,
            on_standing: options.on_standing,
            standing: WorkerStanding::default(),
            telemetry: options.telemetry,
            missing: Some(""),
            run_root: None,
            compute: None,
            uploads: JoinSet::new(),
            fault: None,
            end: None,
        }
    }

    async fn work(mut self, shutdown: impl Future<Output = ()>) -> Result<WorkerEnd> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shutdown = std::pin::pin!(shutdown.fuse());
        while self.end.is_none() {
            let event = tokio::select! {
                opening = or_never(&mut self.opening) => {
                    self.opening = None;
                    self.opened(opening)
                }
                message = next_message(&mut self.stream) => match message {
                    Ok(message) => MemberEvent::Received(message),
                    Err(reason) => self.session_ended(reason),
                },
                leader = or_never(&mut self.watch) => {
                    self.watch = None;
                    self.superseded(leader)
                }
                report = next_report(&mut self.compute) => match self.reported(report) {
                    Some(event) => event,
                    None => continue,
                },
                Some(upload) = self.uploads.join_next() => match uploaded(upload) {
                    Ok(event) => event,
                    Err(error) => self.cannot_go_on(error),
                },
                () = &mut shutdown => MemberEvent::LeaveRequested,
                _ = tick.tick() => MemberEvent::Tick,
            };
            self.feed(event);
        }
        self.wind_down().await
    }

    /// Takes an event to the machine and does what it says, and what follows from that.
    fn feed(&mut self, event: MemberEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.note(&event);
            let actions = self.machine.step(self.started.elapsed(), event);
            self.note_standing();
            self.note_readiness();
            for action in actions {
                events.extend(self.act(action));
            }
        }
        self.keep_watch();
    }

    /// What the shell itself learns from a message.
    fn note(&mut self, event: &MemberEvent) {
        if let MemberEvent::Received(FromCoordinator::Refused(refused)) = event {
            tracing::info!(reason = %refused.reason, leader = %refused.leader, "a coordinator refused this worker");
            self.candidates.hint(&refused.leader);
        }
    }

    fn note_standing(&mut self) {
        let machine = &self.machine;
        let standing = WorkerStanding {
            run_id: machine.run_id().unwrap_or_default().to_owned(),
            member: machine.member_id(),
            epoch: machine.epoch(),
            step: machine.holds(),
        };
        if standing != self.standing {
            self.standing = standing;
            if let Some(tell) = self.on_standing {
                tell(&self.standing);
            }
            self.telemetry.set(&EPOCH, &[], self.standing.epoch as f64);
            self.telemetry.set(&STEP, &[], self.standing.step.unwrap_or_default() as f64);
        }
    }

    /// It does its part once it is taken in with its models in memory, whether it has slots yet or not.
    fn note_readiness(&mut self) {
        let missing = match (self.machine.is_joined(), self.machine.is_prepared()) {
            (true, true) => None,
            (true, false) => Some("the run's models are being loaded"),
            (false, _) if self.machine.run_id().is_some() => Some("the session with the coordinator is gone"),
            (false, _) => Some("no coordinator has taken this worker in yet"),
        };
        if missing != self.missing {
            self.missing = missing;
            match missing {
                None => self.telemetry.ready(),
                Some(why) => self.telemetry.not_ready(why),
            }
        }
    }

    /// Watches for another leader while there is a session.
    fn keep_watch(&mut self) {
        if !self.machine.is_joined() {
            self.watch = None;
        } else if let (None, Some(run_root)) = (&self.watch, &self.run_root) {
            self.watch = Some(other_leader(run_root.clone(), self.machine.epoch(), WATCH_EVERY).boxed());
        }
    }

    fn act(&mut self, action: MemberAction) -> Option<MemberEvent> {
        match action {
            MemberAction::Open { attempt, after } => {
                self.opening = Some(self.candidates.open(attempt, after).boxed());
                None
            }
            MemberAction::Send(mut message) => {
                if let (FromWorker::Ready(ready), Some(compute)) = (&mut message, &self.compute) {
                    ready.device = Some(compute.device());
                }
                let sent = self.stream.as_ref().map_or(Ok(()), |stream| stream.send(message));
                sent.err().map(|reason| self.session_ended(reason))
            }
            MemberAction::Close => {
                self.stream = None;
                self.opening = None;
                None
            }
            MemberAction::Prepare(welcome) => {
                self.prepare(&welcome).err().map(|error| self.cannot_go_on(error))
            }
            MemberAction::Enter { assignment, apply_pending } => {
                let (epoch, members) = (assignment.epoch, assignment.members.len());
                tracing::info!(epoch, step = assignment.step, members, "enters an epoch");
                let member_id = self.machine.member_id().unwrap_or_default();
                self.order(Order::Enter { assignment, member_id, apply_pending })
            }
            MemberAction::Reduce { epoch, step } => self.order(Order::Reduce { epoch, step }),
            MemberAction::Apply(commit) => self.order(Order::Apply(commit)),
            MemberAction::Abort { epoch, reason } => {
                self.exchange.abort(epoch, &reason);
                if let Some(compute) = &self.compute {
                    compute.abort(epoch);
                }
                None
            }
            MemberAction::Finish(end) => {
                self.end = Some(end);
                None
            }
        }
    }

    fn opened(&mut self, opening: Opening) -> MemberEvent {
        let over = opening.leader.as_ref().and_then(|leader| leader.end.clone());
        self.candidates.found(opening.leader);
        match (opening.session, over) {
            (Ok(stream), _) => {
                tracing::info!(coordinator = %stream.address(), "a session is open");
                self.stream = Some(stream);
                self.telemetry.add(&SESSIONS_TOTAL, &[], 1.0);
                MemberEvent::Opened
            }
            // Nobody is there any more because there is nothing left to do.
            (Err(_), Some(how)) => MemberEvent::RunOver { how },
            (Err(ConnectError { reason, untrusted }), None) => {
                tracing::debug!(%reason, "no coordinator yet");
                self.untrusted = untrusted;
                MemberEvent::Closed { reason }
            }
        }
    }

    fn session_ended(&mut self, reason: String) -> MemberEvent {
        tracing::warn!(%reason, "the session with the coordinator ended");
        self.stream = None;
        MemberEvent::Closed { reason }
    }

    /// Leaves a coordinator that hangs or is cut off while another one leads.
    fn superseded(&mut self, leader: EpochRecord) -> MemberEvent {
        let reason = format!("another coordinator leads since epoch {}: {}", leader.epoch, leader.address);
        self.candidates.found(Some(leader));
        self.session_ended(reason)
    }

    fn prepare(&mut self, welcome: &v1::Welcome) -> Result<()> {
        tracing::info!(member = welcome.member_id, run = welcome.run_id, "taken into a run");
        let run_root = Location::parse(&welcome.run_root)?;
        self.candidates.run_root(run_root.clone());
        self.run_root = Some(run_root.clone());
        let spec = ComputeSpec {
            config_toml: welcome.config_toml.clone(),
            config_hash: welcome.config_hash.clone(),
            manifest_hash: welcome.manifest_hash.clone(),
            run_root,
            deadline: Duration::from_millis(u64::from(welcome.step_deadline_ms.max(1))),
            exchange: self.exchange.clone(),
            runtime: tokio::runtime::Handle::current(),
            drill: self.drill.clone(),
            device: self.device,
            telemetry: self.telemetry.clone(),
        };
        self.compute = Some(ComputeThread::start(spec)?);
        Ok(())
    }

    fn order(&mut self, order: Order) -> Option<MemberEvent> {
        let taken = self.compute.as_ref().is_some_and(|compute| compute.order(order));
        // A thread that has ended says why in its last report.
        if !taken {
            tracing::debug!("the compute thread takes no orders");
        }
        None
    }

    /// The event a report is, if it is one.
    fn reported(&mut self, report: Option<Report>) -> Option<MemberEvent> {
        Some(match report {
            Some(Report::Event(event)) => *event,
            Some(Report::Part(part)) => {
                let folder = checkpoint_folder(self.run_root.as_ref()?, &part.checkpoint);
                self.uploads.spawn(store_part(folder, part, self.drill.clone()));
                return None;
            }
            Some(Report::Failed(error)) => self.cannot_go_on(error),
            None => {
                let ended = self.compute.take().map_or(Ok(()), ComputeThread::join);
                let error =
                    ended.err().unwrap_or_else(|| WorkerError::Protocol("compute ended early".into()));
                self.cannot_go_on(error)
            }
        })
    }

    fn cannot_go_on(&mut self, error: WorkerError) -> MemberEvent {
        let event = MemberEvent::Failed { exit_code: error.exit().code(), message: error.to_string() };
        self.fault.get_or_insert(error);
        event
    }

    /// Ends what is under way, waits for it, and says how the worker ended.
    async fn wind_down(mut self) -> Result<WorkerEnd> {
        tracing::info!(end = ?self.end, "the worker ends");
        self.stream = None;
        self.uploads.shutdown().await;
        self.exchange.abort(self.machine.epoch(), "the worker ends");
        if let Some(compute) = self.compute.take() {
            compute.end(WIND_DOWN).await?;
        }
        match self.end {
            Some(MemberEnd::Done) => Ok(WorkerEnd::Done),
            Some(MemberEnd::Interrupted) => Ok(WorkerEnd::Interrupted),
            Some(MemberEnd::Released) => Ok(WorkerEnd::Released),
            Some(MemberEnd::Failed { exit_code, reason }) => {
                Err(self.fault.unwrap_or(WorkerError::RunFailed { exit_code, reason }))
            }
            // Turned out for its card's failure, which says more than that it was turned out.
            Some(MemberEnd::Refused { .. }) if matches!(self.fault, Some(WorkerError::Device(_))) => {
                Err(self.fault.unwrap_or(WorkerError::Protocol("no fault".into())))
            }
            Some(MemberEnd::Left { reason }) => Err(WorkerError::Left { reason }),
            Some(MemberEnd::Refused { reason }) => Err(WorkerError::Refused { reason }),
            Some(MemberEnd::Unreachable { reason }) if self.untrusted => Err(WorkerError::Refused { reason }),
            Some(MemberEnd::Unreachable { reason }) => {
                Err(WorkerError::Coordinator { address: self.coordinators, reason })
            }
            None => Err(WorkerError::Protocol("the worker ended without a reason".into())),
        }
    }
}

fn uploaded(upload: Result<Upload, tokio::task::JoinError>) -> Result<MemberEvent> {
    match upload {
        Ok(Upload::Stored(part)) => Ok(MemberEvent::PartStored(part)),
        Ok(Upload::Failed(failed)) => Ok(MemberEvent::PartFailed(failed)),
        Err(error) => Err(WorkerError::Panicked(format!("an upload: {error}"))),
    }
}

/// What the future comes to, or nothing ever without one.
async fn or_never<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn next_message(stream: &mut Option<Stream>) -> std::result::Result<FromCoordinator, String> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

async fn next_report(compute: &mut Option<ComputeThread>) -> Option<Report> {
    match compute {
        Some(compute) => compute.report().await,
        None => std::future::pending().await,
    }
}
