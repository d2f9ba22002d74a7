//! The state machine of a run: events in, actions out. No clock, no network, no store.

mod cadence;
mod complaints;
mod ending;
mod flapping;
mod gathering;
mod holding;
mod interface;
pub(crate) mod invariants;
mod joining;
mod leading;
mod loss_rise;
mod membership;
mod non_finite;
#[cfg(feature = "planted-bugs")]
mod planted;
mod progress;
mod quarantine;
mod saving;
mod settling;
mod stepping;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use blip2_dataset::quarantine::QuarantineList;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{DeviceUse, NamedValue, StepDone, WorkerDevice};

pub use self::interface::{Action, CommittedStep, Event, Outcome, SessionId, Start, StoreFailure};
#[cfg(feature = "planted-bugs")]
pub use self::planted::PlantedBug;

use self::cadence::Cost;
use self::complaints::Complaint;
use self::ending::Ending;
use self::flapping::Flaps;
use self::gathering::Gathering;
use self::holding::Held;
use self::leading::Leadership;
use self::loss_rise::LossWatch;
use self::membership::Election;
use self::progress::Progress;
use self::saving::Save;
use crate::{CheckpointSettings, CoordinatorSettings, RunSpec};
use blip2_run::coverage::StageCoverage;
use blip2_run::schedule::Schedule;

/// Time without a tick after which this process is taken to have been paused.
const STANDSTILL: Duration = Duration::from_secs(2);

/// Membership, steps and checkpoints of one run.
///
/// Feed it every event with the time since its start, and a [`Event::Tick`] several times a second; do the actions in
/// order. Every wait of the machine has a deadline that a tick ends. [`invariants::check`] says what always holds.
#[derive(Debug)]
pub struct Machine {
    spec: RunSpec,
    settings: CoordinatorSettings,
    checkpoints: CheckpointSettings,
    schedule: Schedule,
    now: Duration,
    last_tick: Duration,
    phase: Phase,
    /// The newest epoch taken or being taken.
    epoch: u64,
    leadership: Leadership,
    /// Committed steps.
    committed: u64,
    /// Committed steps that were given up for lost, until an epoch says so.
    lost_from: Option<u64>,
    /// What they used.
    coverage: StageCoverage,
    /// Rows that they met and could not use.
    quarantine: QuarantineList,
    /// Such rows of steps that are not committed yet, or not any more: the run will meet them (again).
    rows_ahead: QuarantineList,
    /// Steps that are known to be skipped, committed or yet to be met again.
    skipped: BTreeSet<u64>,
    loss_watch: LossWatch,
    /// Every worker that is connected and accepted, by member id.
    members: BTreeMap<u32, Member>,
    next_member: u32,
    flaps: Flaps,
    /// Of members that could not go on since the last commit.
    complaints: Vec<Complaint>,
    /// All workers are processes of one machine, started in the same way.
    on_one_machine: bool,
    /// Members of the current epoch with their slots, in slot order; empty between epochs.
    world: Vec<(u32, Range<u32>)>,
    /// Checkpoints that are being written, by name.
    saves: BTreeMap<String, Save>,
    /// The newest checkpoint with a COMMIT.
    last_checkpoint: Option<Checkpoint>,
    /// The next commit from this time on saves, because a checkpoint was abandoned.
    overdue_save: Option<Duration>,
    /// Checkpoints in a row that could not be stored.
    save_failures: u32,
    cost: Cost,
    /// Why the run is to be saved and left.
    stopping: Option<String>,
    /// Redone attempts of the current step with all members alive.
    redone: u32,
    /// Attempts to write the last checkpoint.
    last_saves: u32,
    progress: Progress,
    actions: Vec<Action>,
    #[cfg(feature = "planted-bugs")]
    planted: Option<PlantedBug>,
}

/// What the machine waits for.
#[derive(Debug)]
enum Phase {
    /// For workers.
    Gathering(Gathering),
    /// For the epoch's object.
    Electing(Election),
    /// For the members' reports.
    Stepping { since: Duration, reports: BTreeMap<u32, Report> },
    /// After an attempt failed: for news of who is gone.
    Settling { since: Duration, until: Duration, reports: BTreeMap<u32, Report> },
    /// For the last checkpoint; from `retry` on it is tried again.
    Saving { retry: Option<Duration> },
    /// For nothing.
    Ended(Ending),
}

impl Phase {
    /// Moves every deadline.
    fn put_off(&mut self, by: Duration) {
        match self {
            Self::Gathering(wait) => wait.put_off(by),
            Self::Electing(election) => election.put_off(by),
            Self::Stepping { since, .. } => *since += by,
            Self::Settling { since, until, .. } => {
                *since += by;
                *until += by;
            }
            Self::Saving { .. } | Self::Ended(_) => {}
        }
    }
}

/// What a member reported of the current step.
#[derive(Debug)]
enum Report {
    Done(StepDone),
    Failed { reason: String, suspects: Vec<u32> },
}

#[derive(Debug)]
struct Member {
    session: SessionId,
    name: String,
    address: String,
    joined: Duration,
    last_seen: Duration,
    /// It has loaded the run's models and can enter an epoch.
    is_ready: bool,
    /// It was part of this run before it joined.
    has_rejoined: bool,
    /// The state it is known to hold.
    held: Option<Held>,
    is_leaving: bool,
    /// Failed attempts in a row in which others suspected it.
    strikes: u32,
    /// How many others suspected it in these.
    accusers: u32,
    /// Parts of checkpoints in a row that it could not store though others could store theirs.
    part_failures: u32,
    data_wait_share: f64,
    /// What it computes on, once it is ready.
    device: Option<WorkerDevice>,
    /// How much of that was used after its last step.
    device_use: Option<DeviceUse>,
}

/// A checkpoint as far as the run needs to know it.
#[derive(Debug)]
struct Checkpoint {
    name: String,
    /// Committed steps.
    step: u64,
    coverage: StageCoverage,
}

impl Machine {
    /// A machine for a run that this coordinator begins to lead.
    pub fn new(
        spec: RunSpec,
        settings: CoordinatorSettings,
        checkpoints: CheckpointSettings,
        start: Start,
    ) -> Self {
        let schedule = spec.schedule.clone();
        let last_checkpoint = spec.resume.as_ref().map(|record| Checkpoint {
            name: record.name.clone(),
            step: record.step,
            coverage: record.coverage.clone(),
        });
        let committed = last_checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step);
        let coverage =
            last_checkpoint.as_ref().map_or_else(StageCoverage::default, |saved| saved.coverage.clone());
        let phase = Phase::Gathering(Gathering::first(&settings, start.expected_members));
        let skipped = spec.resume.iter().flat_map(|record| &record.skipped_steps).copied().collect();
        let values = spec.resume.iter().flat_map(|record| &record.values);
        let progress = Progress::new(
            committed,
            values.map(|(name, value)| NamedValue { name: name.clone(), value: *value }).collect(),
        );
        let mut machine = Self {
            spec,
            settings,
            checkpoints,
            schedule,
            now: Duration::ZERO,
            last_tick: Duration::ZERO,
            phase,
            epoch: start.epoch,
            leadership: Leadership::default(),
            committed,
            lost_from: None,
            coverage,
            quarantine: QuarantineList::default(),
            rows_ahead: start.quarantine,
            skipped,
            loss_watch: LossWatch::default(),
            members: BTreeMap::new(),
            next_member: 0,
            flaps: Flaps::default(),
            complaints: Vec::new(),
            on_one_machine: start.on_one_machine,
            world: Vec::new(),
            saves: BTreeMap::new(),
            last_checkpoint,
            overdue_save: None,
            save_failures: 0,
            cost: Cost::default(),
            stopping: None,
            redone: 0,
            last_saves: 0,
            progress,
            actions: Vec::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        };
        machine.sort_rows();
        machine
    }

    /// Takes in what happened at `now` (since the machine's start) and says what to do, in order.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        if !self.is_ended() {
            self.take_in(event);
        } else if let Event::Joined { session, hello } = event {
            self.joined_too_late(session, &hello);
        }
        debug_assert_eq!(invariants::check(self), Ok(()));
        std::mem::take(&mut self.actions)
    }

    fn take_in(&mut self, event: Event) {
        #[cfg(feature = "planted-bugs")]
        let event = self.unfenced(event);
        match event {
            Event::Joined { session, hello } => self.joined(session, hello),
            Event::Message { session, message } => self.message(session, message),
            Event::Disconnected { session } => {
                if let Some(member) = self.member_of(session) {
                    self.lost(member, "its connection ended");
                }
            }
            Event::Tick => self.tick(),
            Event::EpochTaken { epoch, result } => self.epoch_taken(epoch, result),
            Event::EpochConfirmed { result } => self.epoch_confirmed(result),
            Event::CommitStored { name, result } => self.commit_stored(&name, result),
            Event::StopRequested { reason } => self.stop_requested(reason),
        }
    }

    fn message(&mut self, session: SessionId, message: FromWorker) {
        // A connection that was closed from here may still say something.
        let Some(id) = self.member_of(session) else { return };
        if let Some(member) = self.members.get_mut(&id) {
            member.last_seen = self.now;
        }
        match message {
            FromWorker::Hello(_) => self.expel(id, "it introduced itself twice"),
            FromWorker::Heartbeat(_) => {}
            FromWorker::Ready(ready) => self.is_ready(id, ready),
            FromWorker::StepDone(done) => self.step_done(id, done),
            FromWorker::StepFailed(failed) => self.step_failed(id, failed),
            FromWorker::PartWritten(part) => self.part_written(id, part),
            FromWorker::PartFailed(part) => self.part_failed(id, part),
            FromWorker::Leaving(_) => self.leaving(id),
            FromWorker::Failed(failed) => self.worker_failed(id, failed),
        }
    }

    fn tick(&mut self) {
        self.allow_for_standstill();
        self.check_leadership();
        self.check_members();
        self.check_saves();
        match &self.phase {
            Phase::Gathering(_) => self.go_on_gathering(),
            Phase::Electing(_) => self.go_on_electing(),
            Phase::Stepping { since, .. } if self.now >= *since + self.step_patience() => {
                self.step_timed_out()
            }
            Phase::Settling { until, .. } if self.now >= *until => self.settled(),
            Phase::Saving { retry: Some(retry) } if self.now >= *retry => self.save_last(),
            _ => {}
        }
    }

    /// If this process itself stood still, what the members said meanwhile is still to be taken in, another coordinator may
    /// lead by now, and no wait was too long.
    fn allow_for_standstill(&mut self) {
        let gap = self.now.saturating_sub(std::mem::replace(&mut self.last_tick, self.now));
        if gap >= STANDSTILL {
            tracing::warn!(seconds = gap.as_secs_f64(), "this process stood still");
            self.members.values_mut().for_each(|member| member.last_seen += gap);
            self.put_off_saves(gap);
            self.phase.put_off(gap);
        }
    }

    fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    fn member_of(&self, session: SessionId) -> Option<u32> {
        self.members.iter().find(|(_, member)| member.session == session).map(|(id, _)| *id)
    }

    fn is_in_world(&self, id: u32) -> bool {
        self.world.iter().any(|(member, _)| *member == id)
    }

    /// Whether a member is part of the current epoch or of the one being taken.
    fn is_involved(&self, id: u32) -> bool {
        let elected = match &self.phase {
            Phase::Electing(election) => election.members.iter().any(|(member, _)| *member == id),
            _ => false,
        };
        elected || self.is_in_world(id)
    }

    fn send(&mut self, id: u32, message: ToWorker) {
        if let Some(member) = self.members.get(&id) {
            self.actions.push(Action::Send { session: member.session, message });
        }
    }

    /// Sends to all members of the current epoch.
    fn send_to_world(&mut self, message: &ToWorker) {
        let ids: Vec<u32> = self.world.iter().map(|(id, _)| *id).collect();
        for id in ids {
            self.send(id, message.clone());
        }
    }
}
