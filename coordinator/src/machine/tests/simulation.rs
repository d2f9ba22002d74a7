//! Random schedules of faults over the real machine, with model workers and a model store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{
    Assignment, Commit, Coverage, Heartbeat, Leaving, NamedValue, PartWritten, Ready, StepDone, StepFailed,
    assignment,
};

use super::super::invariants::check as check_invariants;
use super::super::{Action, Event, Machine, Outcome, SessionId, Start};
use super::scene::{hello, settings, spec, used};
use crate::{CheckpointSettings, CoordinatorSettings};

const SLOTS: u32 = 8;
const STEPS: [u64; 2] = [7, 6];
const TOTAL: u64 = 13;
const SEEDS: u64 = 400;
/// Simulated milliseconds by which every run must have ended.
const END: u64 = 3_600_000;

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug)]
enum Due {
    Machine(Event),
    Worker(SessionId, ToWorker),
    /// A worker asks again for the state it needs.
    Fetch(SessionId, u64),
    /// A worker's share of a step is computed.
    Computed(SessionId, u64, u64),
    /// A worker's wait for the others is over.
    Deadline(SessionId, u64, u64),
    /// A worker's part of a checkpoint is in the store.
    Written(SessionId, String),
    Beat(SessionId),
    Spawn,
    Fault,
}

#[derive(Debug, Default)]
struct Worker {
    member: u32,
    /// Steps in its state.
    state: Option<u64>,
    world: Option<Assignment>,
    /// Step in progress.
    step: Option<u64>,
    reported: bool,
    is_aborted: bool,
    /// Neither sends nor computes, though its connection stands.
    cut_off: bool,
    /// Delivery times so far, to keep the streams in order.
    last_in: u64,
    last_out: u64,
}

struct Simulation {
    machine: Machine,
    random: Random,
    now: u64,
    sequence: u64,
    due: BTreeMap<(u64, u64), Due>,
    workers: BTreeMap<SessionId, Worker>,
    next_session: SessionId,
    contributions: BTreeSet<(u64, u64, u32)>,
    epochs: Vec<u64>,
    checkpoints: BTreeMap<String, u64>,
    reported: Vec<u64>,
    faults_left: u32,
    may_interrupt: bool,
    outcome: Option<Outcome>,
    trace: Vec<(Duration, Event, Vec<Action>)>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let workers = 1 + random.below(4) as u32;
        let min_workers = 1 + random.below(u64::from(workers)) as u32;
        let settings =
            CoordinatorSettings { step_deadline_s: 60.0, max_redo: 20, ..settings(workers, min_workers) };
        let every_steps = random.below(4);
        let checkpoints = CheckpointSettings { every_steps, keep: 1, ..CheckpointSettings::default() };
        let mut simulation = Self {
            machine: Machine::new(
                spec(&STEPS),
                settings,
                checkpoints,
                Start { epoch: 1, ..Start::default() },
            ),
            now: 0,
            sequence: 0,
            due: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_session: 0,
            contributions: BTreeSet::new(),
            epochs: vec![1],
            checkpoints: BTreeMap::new(),
            reported: Vec::new(),
            faults_left: random.below(12) as u32,
            may_interrupt: false,
            outcome: None,
            trace: Vec::new(),
            random,
        };
        (0..workers).for_each(|_| simulation.spawn());
        simulation.after(50, 900, Due::Fault);
        simulation.at(100, Due::Machine(Event::Tick));
        simulation
    }

    fn at(&mut self, time: u64, due: Due) {
        self.sequence += 1;
        self.due.insert((time.max(self.now), self.sequence), due);
    }

    fn after(&mut self, least: u64, most: u64, due: Due) {
        let time = self.now + least + self.random.below(most - least + 1);
        self.at(time, due);
    }

    fn spawn(&mut self) {
        let session = self.next_session;
        self.next_session += 1;
        self.workers.insert(session, Worker { member: u32::MAX, ..Worker::default() });
        self.tell(session, Event::Joined { session, hello: hello(session) });
        self.at(self.now + 500, Due::Beat(session));
    }

    /// Puts an event on a worker's stream to the coordinator.
    fn tell(&mut self, session: SessionId, event: Event) {
        let delay = self.random.below(20);
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&session).filter(|worker| !worker.cut_off) else { return };
        worker.last_out = worker.last_out.max(now + delay);
        let time = worker.last_out;
        self.at(time, Due::Machine(event));
    }

    fn say(&mut self, session: SessionId, message: FromWorker) {
        self.tell(session, Event::Message { session, message });
    }

    /// A worker is gone: its connection ends, or is cut off without a word.
    fn kill(&mut self, session: SessionId, silently: bool) {
        if silently {
            if let Some(worker) = self.workers.get_mut(&session) {
                worker.cut_off = true;
            }
        } else {
            self.tell(session, Event::Disconnected { session });
            self.workers.remove(&session);
        }
        self.after(10, 20_000, Due::Spawn);
    }

    fn fault(&mut self) {
        if self.faults_left == 0 {
            return;
        }
        self.faults_left -= 1;
        let sessions: Vec<SessionId> = self.workers.keys().copied().collect();
        if let Some(session) = sessions.get(self.random.below(sessions.len().max(1) as u64) as usize).copied()
        {
            match self.random.below(16) {
                0..=5 => self.kill(session, false),
                6..=8 => self.kill(session, true),
                9 | 10 => self.spawn(),
                11 | 12 => self.report_failure(session, Vec::new()),
                13 => {
                    self.may_interrupt = true;
                    self.say(session, FromWorker::Leaving(Leaving {}));
                }
                14 if self.random.one_in(3) => {
                    self.may_interrupt = true;
                    self.at(self.now, Due::Machine(Event::StopRequested { reason: "asked".into() }));
                }
                _ => sessions.iter().for_each(|session| self.kill(*session, false)),
            }
        }
        self.after(1, 900, Due::Fault);
    }

    fn report_failure(&mut self, session: SessionId, suspects: Vec<u32>) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        let (Some(world), Some(step)) = (&worker.world, worker.step.take()) else { return };
        let epoch = world.epoch;
        let failed = StepFailed { epoch, step, reason: "failed".into(), suspects };
        self.say(session, FromWorker::StepFailed(failed));
    }

    fn run(mut self) -> Self {
        while self.outcome.is_none() {
            let ((time, _), due) = self.due.pop_first().expect("ticks never end");
            assert!(time < END, "the run hangs: {:?}", self.machine.status());
            self.now = time;
            self.happen(due);
        }
        self
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Machine(event) => {
                if event == Event::Tick {
                    self.at(self.now + 100, Due::Machine(Event::Tick));
                }
                let now = Duration::from_millis(self.now);
                let actions = self.machine.step(now, event.clone());
                assert_eq!(check_invariants(&self.machine), Ok(()));
                self.trace.push((now, event, actions.clone()));
                actions.into_iter().for_each(|action| self.act(action));
            }
            Due::Worker(session, message) => self.receive(session, message),
            Due::Fetch(session, epoch) => self.fetch(session, epoch),
            Due::Computed(session, epoch, step) => self.computed(session, epoch, step),
            Due::Deadline(session, epoch, step) => self.deadline(session, epoch, step),
            Due::Written(session, checkpoint) => {
                let written = PartWritten {
                    part: format!("part-{session}"),
                    length: 1,
                    blake3: "d".into(),
                    checkpoint,
                    ..PartWritten::default()
                };
                self.say(session, FromWorker::PartWritten(written));
            }
            Due::Beat(session) => {
                if self.workers.contains_key(&session) {
                    self.say(session, FromWorker::Heartbeat(Heartbeat {}));
                    self.at(self.now + 500, Due::Beat(session));
                }
            }
            Due::Spawn => self.spawn(),
            Due::Fault => self.fault(),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { session, message } => {
                let delay = self.random.below(20);
                let now = self.now;
                let Some(worker) = self.workers.get_mut(&session) else { return };
                worker.last_in = worker.last_in.max(now + delay);
                let time = worker.last_in;
                self.at(time, Due::Worker(session, message));
            }
            // The worker sees its stream end with the message before.
            Action::Close { .. } | Action::StoreQuarantine(_) => {}
            Action::ConfirmEpoch { .. } => {
                self.after(0, 300, Due::Machine(Event::EpochConfirmed { result: Ok(()) }));
            }
            Action::TakeEpoch { epoch, members, .. } => {
                assert!(self.epochs.last().is_some_and(|last| *last < epoch), "one leader an epoch");
                self.epochs.push(epoch);
                let mut next = 0;
                for member in members {
                    assert!(member.first_slot == next && member.slot_count > 0, "slots are partitioned");
                    next += member.slot_count;
                }
                assert_eq!(next, SLOTS, "slots are partitioned");
                self.after(0, 300, Due::Machine(Event::EpochTaken { epoch, result: Ok(()) }));
            }
            Action::StoreCommit { record, .. } => {
                self.checkpoints.insert(record.name.clone(), record.step);
                self.after(0, 2000, Due::Machine(Event::CommitStored { name: record.name, result: Ok(()) }));
            }
            Action::Report(step) => {
                assert_eq!(step.step, self.reported.len() as u64, "no step is reported twice or skipped");
                assert_eq!(step.values[0].value, step.step as f64);
                self.reported.push(step.step);
            }
            Action::Finish(outcome) => self.outcome = Some(outcome),
        }
    }

    fn receive(&mut self, session: SessionId, message: ToWorker) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        match message {
            ToWorker::Welcome(welcome) => {
                worker.member = welcome.member_id;
                self.say(session, FromWorker::Ready(Ready {}));
            }
            ToWorker::Assignment(assignment) => self.enter(session, assignment),
            ToWorker::Commit(commit) => self.apply(session, commit),
            ToWorker::Abort(abort) => {
                if worker.world.as_ref().is_some_and(|world| world.epoch == abort.epoch) {
                    (worker.step, worker.is_aborted) = (None, true);
                }
            }
            ToWorker::Refused(_) | ToWorker::Stop(_) => {
                self.tell(session, Event::Disconnected { session });
                self.workers.remove(&session);
                // Somebody takes the place of one that was released, expelled or came too early.
                self.after(1000, 20_000, Due::Spawn);
            }
        }
    }

    fn enter(&mut self, session: SessionId, assignment: Assignment) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        assert!(assignment.members.iter().any(|member| member.member_id == worker.member));
        let (epoch, step) = (assignment.epoch, assignment.step);
        (worker.world, worker.step, worker.is_aborted) = (Some(assignment), None, false);
        if worker.state == Some(step) { self.begin(session, step) } else { self.fetch(session, epoch) }
    }

    /// Takes the state from where the assignment says, once it is there.
    fn fetch(&mut self, session: SessionId, epoch: u64) {
        let Some(worker) = self.workers.get(&session) else { return };
        let world = worker.world.as_ref().expect("in an epoch");
        if world.epoch != epoch || worker.is_aborted {
            return;
        }
        let step = world.step;
        let held = match world.state.as_ref().expect("a place of the state") {
            assignment::State::Fresh(_) => Some(0),
            assignment::State::Checkpoint(name) => self.checkpoints.get(name).copied(),
            assignment::State::Peer(address) => {
                let peer = world.members.iter().find(|member| member.exchange_address == *address);
                let peer = peer.expect("the peer is a member").member_id;
                let peer = self.workers.values().find(|worker| worker.member == peer && !worker.cut_off);
                let held = peer.map(|peer| peer.state.expect("a peer named has a state"));
                if held.is_some_and(|held| held < step) {
                    // Its commit is still on the way.
                    return self.at(self.now + 1, Due::Fetch(session, epoch));
                }
                held
            }
        };
        let Some(worker) = self.workers.get_mut(&session) else { return };
        match held {
            Some(held) => {
                assert_eq!(held, step, "the state named is the state needed");
                worker.state = Some(step);
                self.begin(session, step);
            }
            None => {
                // The peer died first; the coordinator will hear of that itself.
                worker.step = Some(step);
                self.report_failure(session, Vec::new());
            }
        }
    }

    fn begin(&mut self, session: SessionId, step: u64) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        if step == TOTAL {
            worker.step = None;
            return;
        }
        (worker.step, worker.reported) = (Some(step), false);
        let epoch = worker.world.as_ref().expect("in an epoch").epoch;
        self.after(1, 80, Due::Computed(session, epoch, step));
        self.at(self.now + 60_000, Due::Deadline(session, epoch, step));
    }

    fn is_at(&self, session: SessionId, epoch: u64, step: u64) -> bool {
        self.workers.get(&session).is_some_and(|worker| {
            worker.step == Some(step) && worker.world.as_ref().is_some_and(|world| world.epoch == epoch)
        })
    }

    fn computed(&mut self, session: SessionId, epoch: u64, step: u64) {
        if !self.is_at(session, epoch, step) || self.workers[&session].cut_off {
            return;
        }
        self.contributions.insert((epoch, step, self.workers[&session].member));
        let ready: Vec<SessionId> = self
            .workers
            .iter()
            .filter(|(session, worker)| {
                self.is_at(**session, epoch, step)
                    && !worker.reported
                    && self.missing(worker, step).is_empty()
            })
            .map(|(session, _)| *session)
            .collect();
        for session in ready {
            if let Some(worker) = self.workers.get_mut(&session) {
                worker.reported = true;
            }
            let values = vec![NamedValue { name: "loss".into(), value: step as f64 }];
            let coverage = self.used(session, step);
            let done = StepDone { epoch, step, values, samples: 1, coverage, ..StepDone::default() };
            self.say(session, FromWorker::StepDone(done));
        }
    }

    fn used(&self, session: SessionId, step: u64) -> Option<Coverage> {
        let worker = &self.workers[&session];
        let own = worker.world.as_ref()?.members.iter().find(|member| member.member_id == worker.member)?;
        let used = used(step, own.first_slot..own.first_slot + own.slot_count);
        let stage = if step < STEPS[0] { 1 } else { 2 };
        Some(Coverage { stage, samples: used.samples, digest: used.digest.to_le_bytes().to_vec() })
    }

    /// Members that have not contributed to the step.
    fn missing(&self, worker: &Worker, step: u64) -> Vec<u32> {
        let world = worker.world.as_ref().expect("in an epoch");
        let ids = world.members.iter().map(|member| member.member_id);
        ids.filter(|id| !self.contributions.contains(&(world.epoch, step, *id))).collect()
    }

    fn deadline(&mut self, session: SessionId, epoch: u64, step: u64) {
        if self.is_at(session, epoch, step) && !self.workers[&session].reported {
            let suspects = self.missing(&self.workers[&session], step);
            self.report_failure(session, suspects);
        }
    }

    fn apply(&mut self, session: SessionId, commit: Commit) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        if worker.cut_off {
            return;
        }
        let world = worker.world.clone().expect("a commit follows an assignment");
        assert_eq!(world.epoch, commit.epoch, "a commit is of the epoch of the assignment");
        let is_applied = worker.state == Some(commit.step + 1);
        if !is_applied {
            assert_eq!(worker.state, Some(commit.step), "no step is committed twice or skipped");
            worker.state = Some(commit.step + 1);
            for member in &world.members {
                let contribution = (commit.epoch, commit.step, member.member_id);
                assert!(self.contributions.contains(&contribution), "a committed step is complete");
            }
        }
        if !commit.save_checkpoint.is_empty() {
            self.after(1, 3000, Due::Written(session, commit.save_checkpoint));
        }
        if !is_applied {
            self.begin(session, commit.step + 1);
        }
    }
}

fn check(simulation: &Simulation) {
    let outcome = simulation.outcome.as_ref().expect("it ended");
    match outcome {
        Outcome::Done { checkpoint } => {
            assert_eq!(simulation.reported.len() as u64, TOTAL);
            assert_eq!(simulation.checkpoints.get(checkpoint), Some(&TOTAL));
        }
        Outcome::Interrupted { checkpoint } => {
            assert!(simulation.may_interrupt, "nobody asked");
            let saved = checkpoint.as_ref().map_or(0, |name| simulation.checkpoints[name]);
            assert!(saved <= simulation.reported.len() as u64);
        }
        Outcome::Failed { message, .. } => panic!("{message}"),
    }
}

#[test]
fn random_faults_lose_repeat_and_split_nothing() {
    let mut interrupted = 0;
    for seed in 0..SEEDS {
        let ended = std::panic::catch_unwind(|| {
            let simulation = Simulation::new(seed).run();
            check(&simulation);
            simulation.outcome
        });
        match ended {
            Ok(outcome) => interrupted += u64::from(matches!(outcome, Some(Outcome::Interrupted { .. }))),
            Err(_) => panic!("seed {seed}"),
        }
    }
    assert!((1..SEEDS / 2).contains(&interrupted), "{interrupted} of {SEEDS} interrupted");
}

#[test]
fn the_same_events_cause_the_same_actions() {
    let mut events = 0;
    for seed in 0..20 {
        let (first, again) = (Simulation::new(seed).run(), Simulation::new(seed).run());
        assert_eq!(first.trace, again.trace, "seed {seed}");
        events += first.trace.len();
    }
    assert!(events > 1000, "{events}");
}
