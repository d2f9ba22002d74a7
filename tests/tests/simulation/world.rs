//! The simulated world: a queue of what is due, and the ways in which processes, network and store act on
//! each other.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::coordinator_process::CoordinatorProcess;
use crate::invariants::{ENDS, Fact, Observer, Violation};
use crate::network::{KERNEL_TIMEOUT, Network, Parcel, ProcessId, Session, SessionId};
use crate::process::{Effect, Input, Ticket};
use crate::random::{Random, mix};
use crate::schedule::{FaultKind, Node, Plot, Sickness};
use crate::store::{Request, Store};
use crate::traffic::node_of;
use crate::worker_process::WorkerProcess;

/// Milliseconds between two ticks of a process.
const TICK: u64 = 100;
/// Simulated milliseconds within which every run must have ended.
const END: u64 = 3_600_000;
/// Longest time that a copy of a state waits for a process that stands still.
const FETCH_TIMEOUT: u64 = 10_000;

/// What is due.
#[derive(Debug)]
pub(crate) enum Due {
    Input(ProcessId, Input),
    Tick(ProcessId),
    Deliver(Box<Parcel>),
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
    pub(crate) role: Role,
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
    /// Workers' places whose hosts are sick.
    pub(crate) sick: BTreeMap<u8, Sickness>,
    pub(crate) done: bool,
    pub(crate) interruptions: u32,
    /// A coordinator's start is under way.
    pub(crate) coordinators_due: u32,
    #[cfg(feature = "planted-bugs")]
    pub(crate) planted: crate::planted::Planted,
    queue: BTreeMap<(u64, u64), Due>,
    sequence: u64,
    pub(crate) next_session: SessionId,
    observer: Observer,
    violation: Option<Violation>,
    digest: u64,
    began: Option<u64>,
    takeovers: Vec<u64>,
    /// What happened, for people.
    pub(crate) trace: Option<Vec<String>>,
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
            sick: BTreeMap::new(),
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
            Due::Deliver(parcel) => self.deliver(*parcel),
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
        let is_dull = matches!(fact, Fact::Sent { .. } | Fact::Reported { .. } | Fact::Done { .. });
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
