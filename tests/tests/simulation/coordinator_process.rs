//! A coordinator's process: the machine of production in a simulated shell, and the stand-by before it.

mod standing_by;

use std::collections::BTreeMap;
use std::time::Duration;

use blip2_coordinator::{
    Action, Cadence, CheckpointSettings, CoordinatorSettings, Event, LossRise, Machine, NonFinitePolicy,
    Outcome, RunSpec, Start, StoreFailure, Stranded,
};
use blip2_dataset::quarantine::QuarantineList;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{RefusalCode, Refused};
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::{EpochMember, EpochRecord};
use blip2_store::Location;

use crate::compute::STEP_DEADLINE;
use crate::corpus::{SLOTS, STEPS, TOTAL, schedule};
use crate::invariants::{Fact, MACHINE};
use crate::network::{Content, SessionId};
use crate::process::{Conclusion, Effect, Input, Leading, PendingCommit, Ticket, Wake, newest};
use crate::schedule::Setup;
use crate::store::{Reply, Request};
use crate::worker_process::{BINARY, CONFIG_HASH, TOKEN};

/// Longest farewell in milliseconds.
const FAREWELL: u64 = 15_000;
/// How the failure of a run begins that had one member at most.
pub(crate) const ALONE: &str = "alone: ";

/// A coordinator.
#[derive(Debug)]
pub(crate) struct CoordinatorProcess {
    name: String,
    address: String,
    setup: Setup,
    stage: Stage,
    /// Its connections, with the address each worker introduced itself with.
    sessions: BTreeMap<SessionId, String>,
    /// The epoch that closes the run's coordination.
    last_epoch: Option<EpochRecord>,
    effects: Vec<Effect>,
    #[cfg(feature = "planted-bugs")]
    planted: Option<blip2_coordinator::PlantedBug>,
}

#[derive(Debug)]
enum Stage {
    /// Watches the leader, last heard of and last looked up at these times.
    StandingBy { heard: Duration, looked: Option<Duration>, newest: Option<EpochRecord>, stranded: Stranded },
    /// Reads the newest checkpoint and takes its first epoch.
    Beginning(Beginning),
    /// Leads: the machine, and the time it was made.
    Leading { machine: Box<Machine>, since: Duration },
    /// The run is over for it.
    Leaving(Conclusion),
}

/// What a coordinator knows before it leads.
#[derive(Debug, Default)]
struct Beginning {
    /// The leader from which it takes over.
    after: Option<u64>,
    resume: Option<CheckpointRecord>,
    rows: QuarantineList,
    epoch: u64,
    expected: usize,
}

impl CoordinatorProcess {
    pub(crate) fn new(name: String, address: String, setup: Setup, stands_by: bool) -> Self {
        let stage = if stands_by {
            Stage::StandingBy {
                heard: Duration::ZERO,
                looked: None,
                newest: None,
                stranded: Stranded::default(),
            }
        } else {
            Stage::Beginning(Beginning::default())
        };
        Self {
            name,
            address,
            setup,
            stage,
            sessions: BTreeMap::new(),
            last_epoch: None,
            effects: Vec::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn plant(&mut self, bug: blip2_coordinator::PlantedBug) {
        self.planted = Some(bug);
    }

    /// What it does first.
    pub(crate) fn start(&mut self) -> Vec<Effect> {
        match self.stage {
            Stage::StandingBy { .. } => self.after(0, Wake::Probe),
            _ => self.ask(Ticket::Latest, Request::Latest),
        }
        std::mem::take(&mut self.effects)
    }

    /// What it answers a stand-by's question for its status as one that leads.
    pub(crate) fn as_leader(&self) -> Option<Leading> {
        match &self.stage {
            Stage::Leading { machine, .. } => {
                let status = machine.status();
                let (workers, hands_over) = (status.members.len(), status.hands_over);
                Some(Leading { waits: status.state == "waiting", workers, hands_over })
            }
            Stage::Leaving(_) => Some(Leading { waits: false, workers: 0, hands_over: false }),
            Stage::StandingBy { .. } | Stage::Beginning(_) => None,
        }
    }

    /// Takes in something; `local` is the process's own clock.
    pub(crate) fn take_in(&mut self, local: Duration, input: Input) -> Vec<Effect> {
        match input {
            Input::Tick => self.drive(local, Event::Tick),
            Input::Terminate => self.terminate(local),
            Input::Asked { standby } => self.drive(local, Event::StandbyAsked { standby }),
            Input::Opened(session) => {
                self.sessions.insert(session, String::new());
                self.effects.push(Effect::Accept { session });
            }
            Input::Arrived(session, content) => self.arrived(local, session, *content),
            Input::Stored { ticket, reply } => self.stored(local, *ticket, reply),
            Input::Probed { answer } => self.probed(local, answer),
            Input::Woken(Wake::Probe) => self.look(local),
            Input::Woken(Wake::Leave) => self.leave(),
            _ => {}
        }
        std::mem::take(&mut self.effects)
    }

    fn ask(&mut self, ticket: Ticket, request: Request) {
        self.effects.push(Effect::Ask { ticket: Box::new(ticket), request });
    }

    fn after(&mut self, delay: u64, wake: Wake) {
        self.effects.push(Effect::After { delay, wake });
    }

    fn arrived(&mut self, local: Duration, session: SessionId, content: Content) {
        match content {
            Content::Up(FromWorker::Hello(hello)) => match &mut self.stage {
                Stage::Leading { .. } => {
                    self.sessions.insert(session, hello.exchange_address.clone());
                    self.drive(local, Event::Joined { session, hello });
                }
                Stage::StandingBy { newest, stranded, .. } => {
                    if !hello.run_id.is_empty() {
                        stranded.worker_came(local);
                    }
                    let leader = newest.as_ref().map_or(String::new(), |record| record.address.clone());
                    self.refuse(session, leader);
                }
                Stage::Beginning(_) => self.refuse(session, String::new()),
                Stage::Leaving(_) => self.close(session),
            },
            Content::Up(message) => {
                if let (FromWorker::StepDone(done), Some(address)) = (&message, self.sessions.get(&session)) {
                    let (epoch, step, address) = (done.epoch, done.step, address.clone());
                    self.effects.push(Effect::Observe(Fact::Done { epoch, step, address }));
                }
                self.drive(local, Event::Message { session, message });
            }
            Content::End => {
                self.close(session);
                self.drive(local, Event::Disconnected { session });
                if matches!(self.stage, Stage::Leaving(_)) && self.sessions.is_empty() {
                    self.after(50, Wake::Leave);
                }
            }
            Content::Down(_) => {}
        }
    }

    fn refuse(&mut self, session: SessionId, leader: String) {
        let refused = Refused {
            code: RefusalCode::RefusalStandby.into(),
            reason: "this coordinator stands by".into(),
            leader,
            ..Refused::default()
        };
        self.post(session, Content::Down(ToWorker::Refused(refused)));
        self.close(session);
    }

    fn post(&mut self, session: SessionId, content: Content) {
        self.effects.push(Effect::Post { session, to_worker: true, content });
    }

    /// Ends a connection after what was sent, and reads no more from it.
    fn close(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.post(session, Content::End);
        self.effects.push(Effect::Drop { session });
    }

    fn terminate(&mut self, local: Duration) {
        match self.stage {
            Stage::StandingBy { .. } | Stage::Beginning(_) => {
                self.effects.push(Effect::Conclude(Conclusion::Interrupted));
            }
            Stage::Leading { .. } => self.drive(local, Event::DrainRequested { reason: "asked to".into() }),
            Stage::Leaving(_) => {}
        }
    }

    /// Goes on towards leading, one answer of the store at a time.
    fn go_on(&mut self, local: Duration, ticket: Ticket, reply: Reply) {
        let Stage::Beginning(beginning) = &mut self.stage else { return };
        match (ticket, reply) {
            (Ticket::Latest, Reply::Latest(found)) => {
                if let Some((record, rows)) = found.map(|found| *found) {
                    (beginning.resume, beginning.rows) = (Some(record), rows);
                }
                match beginning.after {
                    Some(led) => self.take_first(led + 1),
                    None => self.ask(Ticket::Epochs, Request::Epochs),
                }
            }
            (Ticket::Epochs, Reply::Epochs(epochs)) => {
                self.take_first(newest(&epochs).map_or(1, |record| record.epoch + 1));
            }
            (Ticket::Begin { epoch }, Reply::Created(true)) => {
                beginning.epoch = epoch;
                self.ask(Ticket::LatestAgain, Request::Latest);
            }
            (Ticket::LatestAgain, Reply::Latest(found)) => {
                if let Some((record, rows)) = found.map(|found| *found) {
                    (beginning.resume, beginning.rows) = (Some(record), rows);
                }
                self.ask(Ticket::Expected, Request::Epochs);
            }
            // Somebody else was faster: one that takes over leaves the run to it.
            (Ticket::Begin { .. }, _) if beginning.after.is_some() => {
                self.effects.push(Effect::Conclude(Conclusion::Fenced));
            }
            (Ticket::Begin { epoch }, _) => self.take_first(epoch + 1),
            (Ticket::Expected, Reply::Epochs(epochs)) => {
                let earlier = epochs.iter().rev().filter(|record| record.epoch <= beginning.epoch);
                let last = earlier.clone().find(|record| record.end.is_some() || !record.members.is_empty());
                beginning.expected = last.map_or(0, |record| record.members.len());
                self.ask(Ticket::Rows, Request::Rows);
            }
            (Ticket::Rows, Reply::Rows(rows)) => {
                beginning.rows.extend(rows.iter().cloned());
                self.lead(local);
            }
            _ => {}
        }
    }

    fn take_first(&mut self, epoch: u64) {
        let Stage::Beginning(Beginning { resume, .. }) = &self.stage else { return };
        let step = resume.as_ref().map_or(0, |record| record.step);
        let record = self.epoch_record(epoch, step, Vec::new());
        self.ask(Ticket::Begin { epoch }, Request::CreateEpoch(record));
    }

    fn stored(&mut self, local: Duration, ticket: Ticket, reply: Result<Reply, String>) {
        match (ticket, reply) {
            (Ticket::Watch, reply) => {
                // A store that fails proves nothing about the leader.
                if let Ok(Reply::Epochs(epochs)) = reply {
                    self.watched(local, newest(&epochs).cloned());
                }
                self.ask_leader(local);
            }
            (
                ticket @ (Ticket::Latest
                | Ticket::Epochs
                | Ticket::Begin { .. }
                | Ticket::LatestAgain
                | Ticket::Expected
                | Ticket::Rows),
                reply,
            ) => match reply {
                Ok(reply) => self.go_on(local, ticket, reply),
                Err(reason) if reason.contains("is valid") => {
                    self.effects.push(Effect::Conclude(Conclusion::Failed(reason)));
                }
                Err(reason) => self.effects.push(Effect::Conclude(Conclusion::NotBegun(reason))),
            },
            (Ticket::Take { epoch }, reply) => {
                let result = match reply {
                    Ok(Reply::Created(true)) => Ok(()),
                    Ok(_) => Err(StoreFailure::Fenced(format!("epoch {epoch} is another's"))),
                    Err(reason) => Err(StoreFailure::Failed(reason)),
                };
                self.drive(local, Event::EpochTaken { epoch, result });
            }
            (Ticket::Confirm { epoch }, reply) => {
                let result = self.confirmed(epoch, reply);
                self.drive(local, Event::EpochConfirmed { result });
            }
            (Ticket::ConfirmCommit(pending), reply) => match self.confirmed(pending.epoch, reply) {
                Ok(()) => {
                    let (record, quarantine) = (pending.record.clone(), pending.quarantine.clone());
                    self.ask(Ticket::Commit(pending), Request::Commit { record, quarantine });
                }
                Err(failure) => self.commit_stored(local, pending.record.name, Err(failure)),
            },
            (Ticket::Commit(pending), Ok(_)) => {
                let PendingCommit { record, in_progress, .. } = pending;
                let (newest, keep) = (record.name.clone(), self.setup.keep);
                self.ask(Ticket::Retire { name: record.name }, Request::Retire { newest, keep, in_progress });
            }
            (Ticket::Commit(pending), Err(reason)) => {
                self.commit_stored(local, pending.record.name, Err(StoreFailure::Failed(reason)));
            }
            (Ticket::Close, _) => self.leave(),
            // Older checkpoints that are left behind are retired with the next one.
            (Ticket::Retire { name }, _) => self.commit_stored(local, name, Ok(())),
            _ => {}
        }
    }

    fn commit_stored(&mut self, local: Duration, name: String, result: Result<(), StoreFailure>) {
        if result.is_ok() {
            let coordinator = self.name.clone();
            self.effects.push(Effect::Observe(Fact::Stored { coordinator }));
        }
        self.drive(local, Event::CommitStored { name, result });
    }

    /// Whether the newest of the epochs is this one, or one of this coordinator.
    fn confirmed(&self, epoch: u64, reply: Result<Reply, String>) -> Result<(), StoreFailure> {
        match reply {
            Ok(Reply::Epochs(epochs)) => match newest(&epochs) {
                Some(record) if record.epoch > epoch && record.coordinator != self.name => {
                    Err(StoreFailure::Fenced(format!("epoch {} is another's", record.epoch)))
                }
                _ => Ok(()),
            },
            Ok(_) => Err(StoreFailure::Failed("no list of epochs".into())),
            Err(reason) => Err(StoreFailure::Failed(reason)),
        }
    }

    fn epoch_record(&self, epoch: u64, step: u64, members: Vec<EpochMember>) -> EpochRecord {
        let (coordinator, address) = (self.name.clone(), self.address.clone());
        EpochRecord { epoch, coordinator, step, members, address, back_from: None, end: None }
    }

    fn lead(&mut self, local: Duration) {
        let Stage::Beginning(beginning) = &mut self.stage else { return };
        let Beginning { resume, rows: quarantine, epoch, expected, .. } = std::mem::take(beginning);
        let coordinator = self.name.clone();
        let resumed = resume.as_ref().map(|record| record.name.clone());
        self.effects.push(Effect::Observe(Fact::Began { coordinator, resume: resumed }));
        let start =
            Start { epoch, expected_members: expected, quarantine, on_one_machine: false, began: local };
        let checkpoints = CheckpointSettings {
            every_steps: self.setup.every_steps,
            keep: self.setup.keep,
            cadence: if self.setup.automatic { Cadence::Auto } else { Cadence::Fixed },
            max_failures: 1000,
            ..CheckpointSettings::default()
        };
        let machine = Machine::new(spec(resume), settings(&self.setup), checkpoints, start);
        #[cfg(feature = "planted-bugs")]
        let machine = self.planted_in(machine);
        self.stage = Stage::Leading { machine: Box::new(machine), since: local };
    }

    #[cfg(feature = "planted-bugs")]
    fn planted_in(&self, mut machine: Machine) -> Machine {
        if let Some(bug) = self.planted {
            machine.plant(bug);
        }
        machine
    }

    fn drive(&mut self, local: Duration, event: Event) {
        let Stage::Leading { machine, since } = &mut self.stage else { return };
        let actions = machine.step(local.saturating_sub(*since), event);
        if let Err(detail) = blip2_coordinator::check(machine) {
            self.effects.push(Effect::Observe(Fact::Broken { what: MACHINE, detail }));
        }
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { session, message } => {
                let coordinator = self.name.clone();
                self.effects.push(Effect::Observe(Fact::Sent { coordinator, message: message.clone() }));
                self.post(session, Content::Down(message));
            }
            Action::Close { session } => self.close(session),
            Action::TakeEpoch { epoch, step, members, back_from } => {
                let record = EpochRecord { back_from, ..self.epoch_record(epoch, step, members) };
                self.effects.push(Effect::Observe(Fact::TookEpoch(record.clone())));
                self.ask(Ticket::Take { epoch }, Request::CreateEpoch(record));
            }
            Action::ConfirmEpoch { epoch } => self.ask(Ticket::Confirm { epoch }, Request::Epochs),
            Action::StoreCommit { record, quarantine, epoch, in_progress } => {
                let pending = PendingCommit { record, quarantine, epoch, in_progress };
                self.ask(Ticket::ConfirmCommit(pending), Request::Epochs);
            }
            Action::StoreQuarantine(rows) => self.ask(Ticket::Copy, Request::PutRows(rows)),
            Action::Report(step) => {
                let coordinator = self.name.clone();
                self.effects.push(Effect::Observe(Fact::Reported { coordinator, step }));
            }
            Action::Finish(outcome) => self.finish(outcome),
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let (conclusion, how) = match outcome {
            Outcome::Done { checkpoint } => (Conclusion::Done(checkpoint), Some("done")),
            Outcome::Interrupted { .. } => (Conclusion::Interrupted, Some("interrupted")),
            Outcome::HandedOver => (Conclusion::HandedOver, None),
            Outcome::Failed { exit_code: 4, .. } => (Conclusion::Fenced, None),
            Outcome::Failed { message, .. } => (Conclusion::Failed(message), Some("failed")),
        };
        let Stage::Leading { machine, .. } = &self.stage else { return };
        let status = machine.status();
        let conclusion = match conclusion {
            Conclusion::Failed(message) if status.members.len() < 2 => {
                Conclusion::Failed(format!("{ALONE}{message}"))
            }
            conclusion => conclusion,
        };
        self.last_epoch = how.map(|how| EpochRecord {
            end: Some(how.into()),
            ..self.epoch_record(status.epoch + 1, status.step, Vec::new())
        });
        self.stage = Stage::Leaving(conclusion);
        let delay = if self.sessions.is_empty() { 50 } else { FAREWELL };
        self.after(delay, Wake::Leave);
    }

    /// The farewell is over: the last epoch tells those who stand by that there is nothing to take over.
    fn leave(&mut self) {
        let Stage::Leaving(conclusion) = &self.stage else { return };
        let conclusion = conclusion.clone();
        match self.last_epoch.take() {
            Some(record) => self.ask(Ticket::Close, Request::CreateEpoch(record)),
            None => self.effects.push(Effect::Conclude(conclusion)),
        }
    }
}

fn settings(setup: &Setup) -> CoordinatorSettings {
    CoordinatorSettings {
        workers: u32::from(setup.workers),
        min_workers: u32::from(setup.min_workers),
        step_deadline_s: STEP_DEADLINE as f64 / 1e3,
        max_redo: 20,
        ..CoordinatorSettings::default()
    }
}

fn spec(resume: Option<CheckpointRecord>) -> RunSpec {
    RunSpec {
        run_id: "run".into(),
        run_root: Location::parse("/runs/simulated").expect("a path"),
        config_toml: format!("[stage1]\nsteps = {}\n[stage2]\nsteps = {}\n", STEPS[0], STEPS[1]),
        config_hash: CONFIG_HASH.into(),
        manifest_hash: "beef".into(),
        binary: BINARY.into(),
        token: TOKEN.into(),
        slots: SLOTS,
        schedule: schedule(),
        resume,
        max_quarantined_share: 1.0,
        not_downloaded: 0,
        non_finite: NonFinitePolicy::Skip { at_most: TOTAL },
        loss_rise: LossRise::default(),
        earlier: Default::default(),
    }
}
