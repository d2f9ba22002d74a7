//! The simulated world: a queue of what is due, and the ways in which processes, network and store act on each other.

use std::collections::BTreeMap;
use std::time::Duration;

use blip2_proto::v1::Commit;

use crate::coordinator_process::CoordinatorProcess;
use crate::invariants::{ENDS, Fact, Observer, Violation};
use crate::network::{Content, KERNEL_TIMEOUT, Network, Parcel, ProcessId, Session, SessionId};
use crate::process::{Effect, Input, Ticket};
use crate::random::{Random, mix};
use crate::schedule::{FaultKind, Node, Plot};
use crate::store::{Request, Store};
use crate::worker_process::WorkerProcess;

/// Milliseconds between two ticks of a process.
const TICK: u64 = 100;
/// Simulated milliseconds within which every run must have ended.
const END: u64 = 3_600_000;
/// Milliseconds after which a request to a store that cannot be reached fails.
const STORE_TIMEOUT: (u64, u64) = (1_000, 4_000);
/// Milliseconds a stand-by waits for the leader's answer.
const PROBE_TIMEOUT: u64 = 1_000;
/// Milliseconds within which a connection must be accepted.
const CONNECT_TIMEOUT: u64 = 5_000;
/// Longest time that a copy of a state waits for a process that stands still.
const FETCH_TIMEOUT: u64 = 10_000;

/// What is due.
#[derive(Debug)]
pub(crate) enum Due {
    Input(ProcessId, Input),
    Tick(ProcessId),
    Deliver(Parcel),
    /// An end of a connection notices that it is gone.
    Break {
        session: SessionId,
        is_worker: bool,
    },
    /// The same, if the link was cut all the time.
    Timeout {
        session: SessionId,
        is_worker: bool,
        link: (Node, Node),
        generation: u64,
    },
    /// The same, if the other process has stood still all the time.
    Keepalive {
        session: SessionId,
        is_worker: bool,
        other: ProcessId,
        pauses: u64,
    },
    Store {
        process: ProcessId,
        node: Node,
        ticket: Box<Ticket>,
        request: Box<Request>,
    },
    Connect {
        process: ProcessId,
        attempt: u64,
        to: Node,
    },
    Push {
        process: ProcessId,
        to: Node,
        push: crate::compute::Push,
        give_up: u64,
    },
    Fetch {
        process: ProcessId,
        to: Node,
        step: u64,
        token: u64,
        give_up: u64,
    },
    Probe {
        process: ProcessId,
        to: Node,
    },
    Fault(FaultKind),
    Relief(FaultKind),
    Resume(ProcessId),
    StartWorker(u8),
    StartCoordinator {
        place: u8,
        stands_by: bool,
    },
    /// Somebody looks whether a coordinator is there at all.
    Operator,
}

/// Who a process is.
#[derive(Debug)]
pub(crate) enum Role {
    Worker(Box<WorkerProcess>),
    Coordinator(Box<CoordinatorProcess>),
}

/// A process and its host.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) name: String,
    role: Role,
    pub(crate) is_alive: bool,
    /// Faults that make it stand still at present, and how often it stood still.
    pub(crate) stopped: u32,
    pub(crate) pauses: u64,
    /// What came while it stood still.
    deferred: Vec<Input>,
    born: u64,
    /// How fast its clock is, in parts per million.
    speed: u64,
}

/// How a simulation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Simulated milliseconds.
    pub(crate) time: u64,
    /// A number that depends on everything that happened, in order.
    pub(crate) digest: u64,
    /// Things that happened.
    pub(crate) events: u64,
    /// Runs of coordinators that were stopped.
    pub(crate) interruptions: u32,
    /// Milliseconds from the begin of each coordinator that took over to its first commit.
    pub(crate) takeovers: Vec<u64>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) plot: Plot,
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) network: Network,
    pub(crate) store: Store,
    pub(crate) processes: Vec<Process>,
    pub(crate) places: BTreeMap<Node, ProcessId>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) may_interrupt: bool,
    pub(crate) has_damaged: bool,
    pub(crate) done: bool,
    pub(crate) interruptions: u32,
    /// A coordinator's start is under way.
    pub(crate) coordinators_due: u32,
    #[cfg(feature = "planted-bugs")]
    pub(crate) planted: crate::planted::Planted,
    queue: BTreeMap<(u64, u64), Due>,
    sequence: u64,
    next_session: SessionId,
    observer: Observer,
    violation: Option<Violation>,
    digest: u64,
    began: Option<u64>,
    takeovers: Vec<u64>,
    /// What happened, for people.
    trace: Option<Vec<String>>,
}

impl World {
    /// The world of a plot, before anything has happened.
    pub(crate) fn new(plot: Plot, is_traced: bool) -> Self {
        let random = Random::new(plot.seed, 2);
        let mut world = Self {
            now: 0,
            random,
            network: Network::new(plot.setup.usual_delay),
            store: Store::default(),
            processes: Vec::new(),
            places: BTreeMap::new(),
            sessions: BTreeMap::new(),
            may_interrupt: false,
            has_damaged: false,
            done: false,
            interruptions: 0,
            coordinators_due: 0,
            #[cfg(feature = "planted-bugs")]
            planted: crate::planted::Planted::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            next_session: 0,
            observer: Observer::default(),
            violation: None,
            digest: 0,
            began: None,
            takeovers: Vec::new(),
            trace: is_traced.then(Vec::new),
            plot,
        };
        world.set_up();
        world
    }

    /// Runs to the end: what it came to, and what happened if that was asked for.
    pub(crate) fn run(mut self) -> (Result<Summary, Violation>, Vec<String>) {
        while self.violation.is_none() {
            if self.done && !self.processes.iter().any(|process| process.is_alive) {
                break;
            }
            let Some(((time, _), due)) = self.queue.pop_first() else { break };
            if time > END {
                let alive: Vec<&str> =
                    self.processes.iter().filter(|p| p.is_alive).map(|p| p.name.as_str()).collect();
                let detail = format!("after {END} ms {alive:?} still run; done: {}", self.done);
                self.violation = Some(Violation { what: ENDS, detail });
                break;
            }
            self.now = time;
            self.happen(due);
        }
        let summary = Summary {
            time: self.now,
            digest: self.digest,
            events: self.sequence,
            interruptions: self.interruptions,
            takeovers: self.takeovers,
        };
        let ended = match self.violation {
            Some(violation) => Err(violation),
            None => Ok(summary),
        };
        (ended, self.trace.unwrap_or_default())
    }

    pub(crate) fn at(&mut self, time: u64, due: Due) {
        self.sequence += 1;
        self.queue.insert((time.max(self.now), self.sequence), due);
    }

    pub(crate) fn after(&mut self, least: u64, most: u64, due: Due) {
        let delay = self.random.between(least, most);
        self.at(self.now + delay, due);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3}  {}", self.now as f64 / 1e3, text()));
        }
    }

    pub(crate) fn violate(&mut self, violation: Violation) {
        self.note(|| format!("VIOLATION {violation}"));
        self.violation.get_or_insert(violation);
    }

    /// Stirs something that happened into the digest.
    fn stir(&mut self, what: u64) {
        self.digest = mix(self.digest ^ mix(self.now) ^ what);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Input(process, input) => self.input(process, input),
            Due::Tick(process) => self.tick(process),
            Due::Deliver(parcel) => self.deliver(parcel),
            Due::Break { session, is_worker } => self.break_end(session, is_worker),
            Due::Timeout { session, is_worker, link: (from, to), generation } => {
                if self.network.is_cut(from, to) && self.network.generation(from, to) == generation {
                    self.break_end(session, is_worker);
                }
            }
            Due::Keepalive { session, is_worker, other, pauses } => {
                let other = &self.processes[other];
                if other.stopped > 0 && other.pauses == pauses {
                    self.break_end(session, is_worker);
                }
            }
            Due::Store { process, node, ticket, request } => self.serve(process, node, ticket, *request),
            Due::Connect { process, attempt, to } => self.connect(process, attempt, to),
            Due::Push { process, to, push, give_up } => self.push(process, to, push, give_up),
            Due::Fetch { process, to, step, token, give_up } => {
                self.fetch(process, to, (step, token), give_up)
            }
            Due::Probe { process, to } => self.probe(process, to),
            Due::Fault(fault) => self.strike(fault),
            Due::Relief(fault) => self.relieve(fault),
            Due::Resume(process) => self.resume(process),
            Due::StartWorker(place) => self.start_worker(place),
            Due::StartCoordinator { place, stands_by } => self.start_coordinator(place, stands_by),
            Due::Operator => self.operate(),
        }
    }

    fn tick(&mut self, process: ProcessId) {
        if !self.processes[process].is_alive {
            return;
        }
        self.at(self.now + TICK, Due::Tick(process));
        self.input(process, Input::Tick);
    }

    /// Gives a process something, or keeps it until the process goes on.
    pub(crate) fn input(&mut self, id: ProcessId, input: Input) {
        let process = &mut self.processes[id];
        if !process.is_alive {
            return;
        }
        if process.stopped > 0 {
            let is_tick = matches!(input, Input::Tick);
            if !is_tick || !process.deferred.iter().any(|input| matches!(input, Input::Tick)) {
                process.deferred.push(input);
            }
            return;
        }
        if !matches!(input, Input::Tick) {
            self.stir(id as u64);
            if self.trace.is_some() && !is_dull(&input) {
                let text = format!("{} <- {input:?}", self.processes[id].name);
                self.note(|| text);
            }
        }
        let now = self.now;
        let process = &mut self.processes[id];
        // Clocks differ by less than a few per cent: the product stays far below 2^64.
        let local = Duration::from_micros((now - process.born) * process.speed / 1000);
        let effects = match &mut process.role {
            Role::Worker(worker) => worker.take_in(now, local, input),
            Role::Coordinator(coordinator) => coordinator.take_in(local, input),
        };
        for effect in effects {
            self.effect(id, effect);
        }
    }

    pub(crate) fn effect(&mut self, id: ProcessId, effect: Effect) {
        let node = self.processes[id].node;
        match effect {
            Effect::Post { session, to_worker, content } => self.post(Parcel { session, to_worker, content }),
            Effect::Drop { session } => self.end_of(session, node).reads = false,
            Effect::Accept { session } => self.accept(session),
            Effect::Connect { attempt, address } => self.begin_connect(id, attempt, &address),
            Effect::Ask { ticket, request } => self.ask(id, ticket, request),
            Effect::After { delay, wake } => self.at(self.now + delay, Due::Input(id, Input::Woken(wake))),
            Effect::Push { address, push } => {
                let give_up = self.now + self.random.between(KERNEL_TIMEOUT.0, KERNEL_TIMEOUT.1);
                self.push(id, node_of(&address), push, give_up);
            }
            Effect::Fetch { address, step, token } => {
                let to = node_of(&address);
                let (delay, give_up) = (self.delay(node, to), self.now + FETCH_TIMEOUT);
                self.at(self.now + delay, Due::Fetch { process: id, to, step, token, give_up });
            }
            Effect::Probe { address } => {
                let to = node_of(&address);
                let delay = self.delay(node, to);
                self.at(self.now + delay, Due::Probe { process: id, to });
            }
            Effect::Observe(fact) => self.observe(&fact),
            Effect::Exit { is_failure, reason } => self.worker_ended(id, is_failure, &reason),
            Effect::Conclude(conclusion) => self.coordinator_ended(id, conclusion),
        }
    }

    fn observe(&mut self, fact: &Fact) {
        self.measure(fact);
        // What is sent and reported shows in other lines.
        let is_dull = matches!(fact, Fact::Sent { .. } | Fact::Reported { .. } | Fact::Reduced { .. });
        if self.trace.is_some() && !is_dull {
            self.note(|| format!("{fact:?}"));
        }
        // Planted bugs are to be found from outside.
        #[cfg(feature = "planted-bugs")]
        if matches!(fact, Fact::Broken { what: crate::invariants::MACHINE, .. }) {
            return;
        }
        if let Err(violation) = self.observer.see(fact, &self.store) {
            self.violate(violation);
        }
    }

    /// How long a coordinator that took over needs until steps flow.
    fn measure(&mut self, fact: &Fact) {
        use blip2_proto::v1::coordinator_message::Kind as ToWorker;
        match fact {
            Fact::Began { .. } => self.began = Some(self.now),
            Fact::Sent { message: ToWorker::Commit(_), .. } => {
                if let Some(began) = self.began.take() {
                    self.takeovers.push(self.now - began);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn check_done(&mut self, checkpoint: &str) {
        if let Err(violation) = self.observer.done(checkpoint, &self.store) {
            self.violate(violation);
        }
    }

    pub(crate) fn delay(&mut self, from: Node, to: Node) -> u64 {
        self.network.delay(&mut self.random, from, to)
    }

    pub(crate) fn add_process(&mut self, node: Node, name: String, role: Role) -> ProcessId {
        let id = self.processes.len();
        let speed = 1_000_000 - 20_000 + self.random.below(40_001);
        self.processes.push(Process {
            node,
            name,
            role,
            is_alive: true,
            stopped: 0,
            pauses: 0,
            deferred: Vec::new(),
            born: self.now,
            speed,
        });
        self.places.insert(node, id);
        self.after(0, TICK, Due::Tick(id));
        id
    }

    /// The process at a place, if one lives there.
    pub(crate) fn alive_at(&self, node: Node) -> Option<ProcessId> {
        self.places.get(&node).copied().filter(|id| self.processes[*id].is_alive)
    }

    /// Lets a coordinator that was just started do its first things.
    pub(crate) fn begin_process(&mut self, id: ProcessId) {
        let Role::Coordinator(coordinator) = &mut self.processes[id].role else { return };
        for effect in coordinator.start() {
            self.effect(id, effect);
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn coordinator_mut(&mut self, id: ProcessId) -> Option<&mut CoordinatorProcess> {
        match &mut self.processes[id].role {
            Role::Coordinator(coordinator) => Some(coordinator),
            Role::Worker(_) => None,
        }
    }

    pub(crate) fn worker_mut(&mut self, id: ProcessId) -> Option<&mut WorkerProcess> {
        match &mut self.processes[id].role {
            Role::Worker(worker) => Some(worker),
            Role::Coordinator(_) => None,
        }
    }

    fn resume(&mut self, id: ProcessId) {
        let process = &mut self.processes[id];
        process.stopped = process.stopped.saturating_sub(1);
        if process.stopped > 0 || !process.is_alive {
            return;
        }
        let name = process.name.clone();
        let deferred = std::mem::take(&mut process.deferred);
        self.note(|| format!("{name} goes on"));
        for input in deferred {
            self.input(id, input);
        }
    }

    fn end_of(&mut self, session: SessionId, node: Node) -> &mut crate::network::End {
        // Sessions are never removed, and only their own processes name them.
        let session = self.sessions.get_mut(&session).expect("a session that was opened");
        session.end(matches!(node, Node::Worker(_)))
    }

    fn ask(&mut self, id: ProcessId, ticket: Box<Ticket>, request: Request) {
        let node = self.processes[id].node;
        if self.network.is_cut_any_way(node, Node::Store) {
            let reply = Err("the store cannot be reached".into());
            let (least, most) = STORE_TIMEOUT;
            return self.after(least, most, Due::Input(id, Input::Stored { ticket, reply }));
        }
        let delay = self.random.between(1, 25) + self.store.slowness(node);
        let request = Box::new(request);
        self.at(self.now + delay, Due::Store { process: id, node, ticket, request });
    }

    /// The moment at which a request takes effect, whether who asked still lives or not.
    fn serve(&mut self, process: ProcessId, node: Node, ticket: Box<Ticket>, request: Request) {
        let name = match &request {
            Request::Commit { record, .. } => Some(record.name.clone()),
            _ => None,
        };
        let reply = self.store.serve(node, request);
        let found = self.store.committed().find(|(record, _)| Some(&record.name) == name.as_ref());
        if let Some(Err(violation)) = found.map(|(record, found)| Observer::stored(record, found)) {
            self.violate(violation);
        }
        self.after(1, 10, Due::Input(process, Input::Stored { ticket, reply }));
    }

    fn begin_connect(&mut self, id: ProcessId, attempt: u64, address: &str) {
        let (from, to) = (self.processes[id].node, node_of(address));
        if self.network.is_cut_any_way(from, to) {
            let reason = "no answer".into();
            return self
                .at(self.now + CONNECT_TIMEOUT, Due::Input(id, Input::OpenFailed { attempt, reason }));
        }
        let delay = self.delay(from, to);
        self.at(self.now + delay, Due::Connect { process: id, attempt, to });
    }

    fn connect(&mut self, process: ProcessId, attempt: u64, to: Node) {
        let from = self.processes[process].node;
        let Some(coordinator) = self.alive_at(to) else {
            let delay = self.delay(to, from);
            let failed = Input::OpenFailed { attempt, reason: "refused".into() };
            return self.at(self.now + delay, Due::Input(process, failed));
        };
        let session = self.open(process, (coordinator, to), attempt);
        self.input(coordinator, Input::Opened(session));
    }

    /// A connection between a worker and a coordinator.
    pub(crate) fn open(
        &mut self,
        worker: ProcessId,
        coordinator: (ProcessId, Node),
        attempt: u64,
    ) -> SessionId {
        self.next_session += 1;
        let node = self.processes[worker].node;
        self.sessions.insert(self.next_session, Session::new((worker, node), coordinator, attempt));
        self.next_session
    }

    fn accept(&mut self, session: SessionId) {
        let Some(Session { worker, coordinator, attempt }) = self.sessions.get(&session).cloned() else {
            return;
        };
        if !self.processes[worker.process].is_alive {
            return self.break_end(session, false);
        }
        let delay = self.delay(coordinator.node, worker.node);
        let earliest = self.now + delay;
        let time = self.end_of(session, worker.node).in_order(earliest);
        self.at(time, Due::Input(worker.process, Input::Connected { attempt, session }));
    }

    /// Sends on a connection; what a cut link does not let through waits.
    fn post(&mut self, parcel: Parcel) {
        let Some(session) = self.sessions.get_mut(&parcel.session) else { return };
        let (from, to) = (session.end(!parcel.to_worker).clone(), session.end(parcel.to_worker).clone());
        if from.is_broken {
            return;
        }
        if self.network.is_cut(from.node, to.node) {
            return self.network.hold(from.node, to.node, parcel);
        }
        if self.trace.is_some() && !is_heartbeat(&parcel.content) {
            let (one, other) =
                (self.processes[from.process].name.clone(), self.processes[to.process].name.clone());
            self.note(|| format!("{one} -> {other} #{}: {}", parcel.session, brief(&parcel.content)));
        }
        let delay = self.delay(from.node, to.node);
        let now = self.now;
        let end = self.end_of(parcel.session, to.node);
        let time = end.in_order(now + delay);
        if end.takes_repeat(&parcel.content) {
            self.at(time, Due::Deliver(parcel.clone()));
        }
        self.at(time, Due::Deliver(parcel));
    }

    /// Sends what waited for a link to heal.
    pub(crate) fn release(&mut self, parcels: Vec<Parcel>) {
        for parcel in parcels {
            self.post(parcel);
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        let Some(session) = self.sessions.get_mut(&parcel.session) else { return };
        let end = session.end(parcel.to_worker);
        if end.is_broken || !end.reads {
            return;
        }
        let process = end.process;
        self.input(process, Input::Arrived(parcel.session, parcel.content));
    }

    /// One end of a connection is gone, and the other hears of it soon.
    pub(crate) fn break_end(&mut self, session: SessionId, is_worker: bool) {
        let Some(found) = self.sessions.get_mut(&session) else { return };
        let end = found.end(is_worker);
        if std::mem::replace(&mut end.is_broken, true) {
            return;
        }
        let (process, is_read) = (end.process, end.reads);
        if is_read {
            self.input(process, Input::Arrived(session, Content::End));
        }
        self.after(1_000, KERNEL_TIMEOUT.1, Due::Break { session, is_worker: !is_worker });
    }

    fn push(&mut self, process: ProcessId, to: Node, push: crate::compute::Push, give_up: u64) {
        let from = self.processes[process].node;
        if self.network.is_cut(from, to) {
            if self.now >= give_up {
                return self.input(process, Input::PushFailed(push));
            }
            return self.at(self.now + 100, Due::Push { process, to, push, give_up });
        }
        let delay = self.delay(from, to);
        let Some(target) = self.alive_at(to) else {
            return self.at(self.now + 2 * delay + 1, Due::Input(process, Input::PushFailed(push)));
        };
        if self.network.is_cut(to, from) {
            // It arrives, but its sender never hears of that.
            self.at(give_up, Due::Input(process, Input::PushFailed(push.clone())));
        }
        self.at(self.now + delay, Due::Input(target, Input::Received(push)));
    }

    fn fetch(&mut self, process: ProcessId, to: Node, (step, token): (u64, u64), give_up: u64) {
        let from = self.processes[process].node;
        let delay = self.delay(to, from);
        let mut wait = delay;
        let found = if self.network.is_cut_any_way(from, to) {
            wait = self.random.between(KERNEL_TIMEOUT.0, KERNEL_TIMEOUT.1);
            Err("the peer does not answer".to_owned())
        } else {
            match self.alive_at(to) {
                None => Err("the peer is gone".into()),
                Some(peer) if self.processes[peer].stopped > 0 && self.now < give_up => {
                    return self.at(self.now + 100, Due::Fetch { process, to, step, token, give_up });
                }
                Some(peer) => {
                    let held = self.worker_mut(peer).and_then(|worker| worker.compute.published);
                    Ok(held.filter(|held| held.step == step))
                }
            }
        };
        self.at(self.now + wait, Due::Input(process, Input::Fetched { token, found }));
    }

    fn probe(&mut self, process: ProcessId, to: Node) {
        let from = self.processes[process].node;
        let answer = if self.network.is_cut_any_way(from, to) {
            None
        } else {
            match self.alive_at(to).map(|id| &self.processes[id]) {
                Some(Process { stopped: 0, role: Role::Coordinator(leader), .. }) => Some(leader.is_leader()),
                Some(_) => None,
                None => Some(false),
            }
        };
        let delay = self.delay(to, from);
        let (wait, answered) = answer.map_or((PROBE_TIMEOUT, false), |answered| (delay, answered));
        self.at(self.now + wait, Due::Input(process, Input::Probed { answered }));
    }
}

/// The host of an address.
fn node_of(address: &str) -> Node {
    let host = address.trim_start_matches("http://").split(':').next().unwrap_or_default();
    let place = host.get(1..).and_then(|digits| digits.parse().ok());
    match (host.get(..1), place) {
        (Some("c"), Some(place)) => Node::Coordinator(place),
        (Some("w"), Some(place)) => Node::Worker(place),
        _ => Node::Store,
    }
}

fn is_heartbeat(content: &Content) -> bool {
    use blip2_proto::v1::worker_message::Kind;
    matches!(content, Content::Up(Kind::Heartbeat(_)))
}

/// Inputs that tell a reader nothing that another line does not tell.
fn is_dull(input: &Input) -> bool {
    match input {
        Input::Tick | Input::Woken(_) | Input::Received(_) | Input::Arrived(..) | Input::Opened(_) => true,
        Input::Stored { reply, .. } => reply.is_ok(),
        Input::Fetched { found, .. } => found.is_ok(),
        _ => false,
    }
}

/// A message in one short line.
fn brief(content: &Content) -> String {
    use blip2_proto::v1::coordinator_message::Kind as Down;
    use blip2_proto::v1::worker_message::Kind as Up;
    match content {
        Content::Up(Up::Hello(hello)) => {
            format!("Hello of {} epoch {} holds {:?}", hello.name, hello.epoch, hello.holds)
        }
        Content::Up(Up::StepDone(done)) => format!("StepDone {} of epoch {}", done.step, done.epoch),
        Content::Down(Down::Welcome(welcome)) => {
            format!("Welcome as member {} in epoch {}", welcome.member_id, welcome.epoch)
        }
        Content::Down(Down::Assignment(assignment)) => {
            let members = assignment.members.iter();
            let members: Vec<&str> = members.map(|member| member.exchange_address.as_str()).collect();
            let (epoch, step, state) = (assignment.epoch, assignment.step, &assignment.state);
            format!("Assignment of epoch {epoch}: step {step} with {members:?} from {state:?}")
        }
        Content::Down(Down::Commit(commit)) => {
            let Commit { epoch, step, save_checkpoint, .. } = commit;
            format!("Commit {step} of epoch {epoch}, save {save_checkpoint:?}")
        }
        other => {
            let text = format!("{other:?}");
            text.chars().take(200).collect()
        }
    }
}
