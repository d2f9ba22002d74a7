//! How faults strike, and how processes come and go.

use crate::compute::SICK;
use crate::coordinator_process::{ALONE, CoordinatorProcess};
use crate::invariants::{ENDS, Violation};
use crate::network::{Content, KERNEL_TIMEOUT, Parcel, ProcessId, SessionId};
use crate::process::{Conclusion, Input};
use crate::random::Random;
use crate::schedule::{COORDINATORS, FaultKind, Node, WORKERS};
use crate::worker_process::WorkerProcess;
use crate::world::{Due, Role, World};

/// Milliseconds after which HTTP/2 gives up a process that stands still though its kernel answers: a worker
/// its coordinator, and a coordinator its worker.
const KEEPALIVE: (u64, u64) = (4_000, 25_000);

impl World {
    /// Starts the first processes and hangs up the faults.
    pub(crate) fn set_up(&mut self) {
        let setup = self.plot.setup.clone();
        self.coordinators_due = 1;
        self.at(0, Due::StartCoordinator { place: 0, stands_by: false });
        if setup.standby {
            self.coordinators_due += 1;
            self.after(100, 3000, Due::StartCoordinator { place: 1, stands_by: true });
        }
        for place in 0..setup.workers {
            self.after(0, 1500, Due::StartWorker(place));
        }
        for fault in self.plot.faults.clone() {
            self.at(fault.at, Due::Fault(fault.kind));
        }
        self.at(1000, Due::Operator);
    }

    pub(crate) fn start_worker(&mut self, place: u8) {
        let node = Node::Worker(place);
        if self.done || self.alive_at(node).is_some() {
            return;
        }
        let random = Random::new(self.random.next(), 3);
        let given = (0..COORDINATORS).map(|place| format!("http://c{place}:1")).collect();
        let address = format!("w{place}:1");
        let worker = WorkerProcess::new(&address, &format!("w{place}"), given, random);
        let name = format!("w{place}.{}", self.processes.len());
        self.note(|| format!("{name} starts"));
        let id = self.add_process(node, name, Role::Worker(Box::new(worker)));
        self.infect(place);
        self.plant(id);
    }

    pub(crate) fn start_coordinator(&mut self, place: u8, stands_by: bool) {
        self.coordinators_due = self.coordinators_due.saturating_sub(1);
        let node = Node::Coordinator(place);
        if self.done || self.alive_at(node).is_some() {
            return;
        }
        let name = format!("c{place}.{}", self.processes.len());
        let address = format!("http://c{place}:1");
        self.note(|| format!("{name} starts{}", if stands_by { " and stands by" } else { "" }));
        let process = CoordinatorProcess::new(name.clone(), address, self.plot.setup.clone(), stands_by);
        let id = self.add_process(node, name, Role::Coordinator(Box::new(process)));
        self.plant(id);
        self.begin_process(id);
    }

    #[cfg(not(feature = "planted-bugs"))]
    fn plant(&mut self, _id: ProcessId) {}

    fn start_coordinator_later(&mut self, place: u8, stands_by: bool, least: u64, most: u64) {
        self.coordinators_due += 1;
        self.after(least, most, Due::StartCoordinator { place, stands_by });
    }

    /// Starts a coordinator where none is left.
    pub(crate) fn operate(&mut self) {
        if self.done {
            return;
        }
        self.at(self.now + 1000, Due::Operator);
        let is_there = (0..COORDINATORS).any(|place| self.alive_at(Node::Coordinator(place)).is_some());
        let is_begun = self.store.epoch(1).is_some();
        // Stand-bys alone do not begin a run.
        if (!is_there || !is_begun) && self.coordinators_due == 0 {
            self.start_coordinator_later(0, false, 500, 3000);
        }
    }

    pub(crate) fn worker_ended(&mut self, id: ProcessId, is_failure: bool, reason: &str) {
        let (name, node) = (self.processes[id].name.clone(), self.processes[id].node);
        self.note(|| format!("{name} ends{}: {reason}", if is_failure { " in failure" } else { "" }));
        self.processes[id].is_alive = false;
        self.break_ends_of(id, false);
        if let Node::Worker(place) = node {
            self.after(500, 8000, Due::StartWorker(place));
        }
    }

    pub(crate) fn coordinator_ended(&mut self, id: ProcessId, conclusion: Conclusion) {
        let (name, node) = (self.processes[id].name.clone(), self.processes[id].node);
        self.note(|| format!("{name} ends: {conclusion:?}"));
        self.processes[id].is_alive = false;
        self.break_ends_of(id, false);
        let Node::Coordinator(place) = node else { return };
        match conclusion {
            Conclusion::Done(checkpoint) => {
                self.done = true;
                self.check_done(&checkpoint);
            }
            Conclusion::Interrupted => {
                self.interruptions += 1;
                if !self.may_interrupt {
                    let detail = format!("{name} was interrupted, and nobody had asked");
                    self.violate(Violation { what: ENDS, detail });
                }
            }
            Conclusion::HandedOver if !self.may_interrupt => {
                let detail = format!("{name} handed over, and nobody had asked");
                self.violate(Violation { what: ENDS, detail });
            }
            Conclusion::Fenced | Conclusion::HandedOver if self.plot.setup.standby => {
                self.start_coordinator_later(place, true, 1000, 5000);
            }
            Conclusion::NotBegun(_) => {
                let stands_by = self.plot.setup.standby && self.store.epoch(1).is_some();
                self.start_coordinator_later(place, stands_by, 1000, 5000);
            }
            Conclusion::Fenced | Conclusion::HandedOver | Conclusion::AlreadyOver => {}
            // The checkpoint to which all was set back was damaged under a coordinator that relied on it: the
            // next one looks for the one before. What the only member cannot do, nobody can.
            Conclusion::Failed(message) if message.starts_with(ALONE) && message.contains(SICK) => {}
            Conclusion::Failed(message) if self.has_damaged && message.contains("is damaged") => {}
            Conclusion::Failed(message) => {
                self.violate(Violation { what: ENDS, detail: format!("{name} failed: {message}") });
            }
        }
    }

    /// The connections of a process that is gone: its peers hear of it now, or when their kernels give up.
    fn break_ends_of(&mut self, id: ProcessId, silently: bool) {
        let ends: Vec<(SessionId, bool)> = self
            .sessions
            .iter()
            .filter_map(|(session, found)| {
                let is_worker = found.worker.process == id;
                (is_worker || found.coordinator.process == id).then_some((*session, is_worker))
            })
            .collect();
        for (session, is_worker) in ends {
            let Some(found) = self.sessions.get_mut(&session) else { continue };
            if std::mem::replace(&mut found.end(is_worker).is_broken, true) {
                continue;
            }
            let (from, to) = (found.end(is_worker).node, found.end(!is_worker).node);
            let is_told = !silently && !self.network.is_cut(from, to);
            let due = Due::Break { session, is_worker: !is_worker };
            if !is_told {
                self.after(KERNEL_TIMEOUT.0, KERNEL_TIMEOUT.1, due);
            } else if self.random.one_in(2) {
                // A reset overtakes what is on the way and destroys it.
                let delay = self.delay(from, to);
                self.at(self.now + delay, due);
            } else {
                let time = self.now + self.delay(from, to);
                let end = self.sessions.get_mut(&session).map(|found| found.end(!is_worker).in_order(time));
                self.at(end.unwrap_or(time), due);
            }
        }
    }

    fn kill(&mut self, node: Node, silently: bool) -> bool {
        let Some(id) = self.alive_at(node) else { return false };
        self.processes[id].is_alive = false;
        self.break_ends_of(id, silently);
        true
    }

    pub(crate) fn strike(&mut self, fault: FaultKind) {
        self.note(|| format!("FAULT {fault:?}"));
        if self.done {
            return;
        }
        match fault {
            FaultKind::KillWorker { place, silently, back_after } => {
                if self.kill(Node::Worker(place), silently) {
                    self.at(self.now + back_after, Due::StartWorker(place));
                }
            }
            FaultKind::KillAllWorkers { back_after } => {
                for place in 0..WORKERS {
                    if self.kill(Node::Worker(place), false) {
                        self.after(back_after, back_after + 2000, Due::StartWorker(place));
                    }
                }
            }
            FaultKind::KillCoordinator { place, silently, back_after } => {
                if self.kill(Node::Coordinator(place), silently) {
                    // A run that nobody has begun to lead is not taken over.
                    let stands_by = self.plot.setup.standby && self.store.epoch(1).is_some();
                    self.start_coordinator_later(place, stands_by, back_after, back_after);
                }
            }
            FaultKind::Join { place } => self.start_worker(place),
            FaultKind::Pause { node, lasting } => self.pause(node, lasting),
            FaultKind::SecondCoordinator => {
                self.coordinators_due += 1;
                self.start_coordinator(2, false);
            }
            FaultKind::Cut { lasting, .. }
            | FaultKind::Isolate { lasting, .. }
            | FaultKind::Slow { lasting, .. }
            | FaultKind::Store { lasting, .. } => {
                self.begin_condition(fault);
                self.at(self.now + lasting, Due::Relief(fault));
            }
            FaultKind::Sick { place, how, lasting } => {
                self.sick.insert(place, how);
                self.infect(place);
                self.at(self.now + lasting, Due::Relief(fault));
            }
            FaultKind::Reset { place } => self.reset(place),
            FaultKind::RepeatHello { place } => self.repeat_hello(place),
            FaultKind::Repeat { place } => {
                if let Some(session) = self.newest_session(place)
                    && let Some(found) = self.sessions.get_mut(&session)
                {
                    (found.worker.repeat, found.coordinator.repeat) = (true, true);
                }
            }
            FaultKind::Leave { place } => self.terminate(Node::Worker(place)),
            FaultKind::Stop { place } => self.terminate(Node::Coordinator(place)),
            FaultKind::Damage => {
                let damaged = self.store.damage_newest();
                self.has_damaged |= damaged.is_some();
                self.note(|| format!("damaged: {damaged:?}"));
            }
        }
    }

    /// Lets the process at a worker's place be as sick as its host.
    fn infect(&mut self, place: u8) {
        let how = self.sick.get(&place).copied();
        if let Some(id) = self.alive_at(Node::Worker(place))
            && let Some(worker) = self.worker_mut(id)
        {
            worker.compute.sick = how;
        }
    }

    fn terminate(&mut self, node: Node) {
        if let Some(id) = self.alive_at(node) {
            self.may_interrupt = true;
            self.input(id, Input::Terminate);
        }
    }

    fn pause(&mut self, node: Node, lasting: u64) {
        let Some(id) = self.alive_at(node) else { return };
        self.processes[id].stopped += 1;
        self.processes[id].pauses += 1;
        self.at(self.now + lasting, Due::Resume(id));
        let pauses = self.processes[id].pauses;
        let ends: Vec<(SessionId, bool)> = self
            .sessions
            .iter()
            .filter(|(_, found)| !found.worker.is_broken && !found.coordinator.is_broken)
            .filter(|(_, found)| found.worker.process == id || found.coordinator.process == id)
            .map(|(session, found)| (*session, found.coordinator.process == id))
            .collect();
        for (session, is_worker) in ends {
            let patience = if is_worker { KEEPALIVE.0 } else { KEEPALIVE.1 };
            self.at(self.now + patience, Due::Keepalive { session, is_worker, other: id, pauses });
        }
    }

    fn begin_condition(&mut self, fault: FaultKind) {
        match fault {
            FaultKind::Slow { from, to, delay, .. } => self.network.slow_down(from, to, delay),
            FaultKind::Store { fault, node, .. } => self.store.begin_fault(fault, node),
            other => self.links(other).into_iter().for_each(|(from, to)| self.cut(from, to)),
        }
    }

    pub(crate) fn relieve(&mut self, fault: FaultKind) {
        self.note(|| format!("relief of {fault:?}"));
        match fault {
            FaultKind::Slow { from, to, delay, .. } => self.network.speed_up(from, to, delay),
            FaultKind::Store { fault, node, .. } => self.store.end_fault(fault, node),
            FaultKind::Sick { place, .. } => {
                self.sick.remove(&place);
                self.infect(place);
            }
            other => {
                for (from, to) in self.links(other) {
                    let held = self.network.heal(from, to);
                    self.release(held);
                }
            }
        }
    }

    /// The links a fault cuts.
    fn links(&self, fault: FaultKind) -> Vec<(Node, Node)> {
        match fault {
            FaultKind::Cut { from, to, both: false, .. } => vec![(from, to)],
            FaultKind::Cut { from, to, both: true, .. } => vec![(from, to), (to, from)],
            FaultKind::Isolate { node, store_too, .. } => {
                let workers = (0..WORKERS).map(Node::Worker);
                let others = workers.chain((0..COORDINATORS).map(Node::Coordinator));
                let others = others.chain(store_too.then_some(Node::Store)).filter(|other| *other != node);
                others.flat_map(|other| [(node, other), (other, node)]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Cuts a link: each end of a connection over it gives up by itself.
    fn cut(&mut self, from: Node, to: Node) {
        self.network.cut(from, to);
        let generation = self.network.generation(from, to);
        let over: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, found)| {
                let ends = (found.worker.node, found.coordinator.node);
                ends == (from, to) || ends == (to, from)
            })
            .filter(|(_, found)| !found.worker.is_broken || !found.coordinator.is_broken)
            .map(|(session, _)| *session)
            .collect();
        for session in over {
            for is_worker in [false, true] {
                let due = Due::Timeout { session, is_worker, link: (from, to), generation };
                self.after(KERNEL_TIMEOUT.0, KERNEL_TIMEOUT.1, due);
            }
        }
    }

    /// The newest connection of the worker at a place that stands.
    fn newest_session(&self, place: u8) -> Option<SessionId> {
        let id = self.alive_at(Node::Worker(place))?;
        let stands = |found: &crate::network::Session| {
            found.worker.process == id && !found.worker.is_broken && !found.coordinator.is_broken
        };
        self.sessions.iter().rev().find(|(_, found)| stands(found)).map(|(session, _)| *session)
    }

    fn reset(&mut self, place: u8) {
        if let Some(session) = self.newest_session(place) {
            self.break_end(session, true);
            self.after(0, 3000, Due::Break { session, is_worker: false });
        }
    }

    /// A copy of a worker's introduction reaches its coordinator on a connection that nobody answers for, as
    /// after an opening that was given up.
    fn repeat_hello(&mut self, place: u8) {
        let Some(session) = self.newest_session(place) else { return };
        let Some(found) = self.sessions.get(&session) else { return };
        let (worker, to) = (found.worker.process, (found.coordinator.process, found.coordinator.node));
        let Some(hello) = self.worker_mut(worker).and_then(|worker| worker.last_hello.clone()) else {
            return;
        };
        let phantom = self.open(worker, to, 0);
        self.input(to.0, Input::Opened(phantom));
        let parcel = Parcel { session: phantom, to_worker: false, content: Content::Up(hello) };
        self.release(vec![parcel]);
        // The worker's host resets it when it is answered.
        self.after(1, 4000, Due::Break { session: phantom, is_worker: false });
    }
}
