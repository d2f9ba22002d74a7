//! What the machine knows: of the run, of its members and of what is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use blip2_dataset::quarantine::QuarantineList;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{DeviceUse, NamedValue, WorkerDevice};
use blip2_run::coverage::StageCoverage;
use blip2_run::schedule::Schedule;

use super::complaint::{Complaint, place};
use super::cost::Cost;
use super::counted::Counted;
use super::flapping::Flaps;
use super::hand_over::HandOver;
use super::interface::{Action, SessionId, Start};
use super::loss_rise::LossWatch;
use super::phase::{Gathering, Phase};
#[cfg(feature = "planted-bugs")]
use super::planted_bug::PlantedBug;
use super::progress::Progress;
use super::records::Records;
use super::save::Save;
use super::spending::Spending;
use crate::{CheckpointSettings, CoordinatorSettings, RunSpec};

/// Membership, steps and checkpoints of one run.
///
/// Feed it every event with the time since its start, and a [`Event::Tick`](crate::Event::Tick) several times
/// a second; do the actions in order. Every wait of the machine has a deadline that a tick ends.
/// [`check`](crate::check) says what always holds.
#[derive(Debug)]
pub struct Machine {
    pub(super) spec: RunSpec,
    pub(super) settings: CoordinatorSettings,
    pub(super) checkpoints: CheckpointSettings,
    pub(super) schedule: Schedule,
    pub(super) now: Duration,
    pub(super) last_tick: Duration,
    pub(super) phase: Phase,
    /// The newest epoch taken or being taken.
    pub(super) epoch: u64,
    pub(super) leadership: Leadership,
    pub(super) hand_over: HandOver,
    /// Committed steps.
    pub(super) committed: u64,
    /// Committed steps that were given up for lost, until an epoch says so.
    pub(super) lost_from: Option<u64>,
    /// What they used.
    pub(super) coverage: StageCoverage,
    /// Rows that they met and could not use.
    pub(super) quarantine: QuarantineList,
    /// Such rows of steps that are not committed yet, or not any more: the run will meet them (again).
    pub(super) rows_ahead: QuarantineList,
    /// Steps that are known to be skipped, committed or yet to be met again.
    pub(super) skipped: BTreeSet<u64>,
    pub(super) loss_watch: LossWatch,
    /// Every worker that is connected and accepted, by member id.
    pub(super) members: BTreeMap<u32, Member>,
    pub(super) next_member: u32,
    pub(super) flaps: Flaps,
    /// Of members that could not go on since the last commit.
    pub(super) complaints: Vec<Complaint>,
    /// All workers are processes of one machine, started in the same way.
    pub(super) on_one_machine: bool,
    /// Members of the current epoch with their slots, in slot order; empty between epochs.
    pub(super) world: Vec<(u32, Range<u32>)>,
    /// Checkpoints that are being written, by name.
    pub(super) saves: BTreeMap<String, Save>,
    /// The newest checkpoint with a COMMIT.
    pub(super) last_checkpoint: Option<Checkpoint>,
    /// The next commit from this time on saves, because a checkpoint was abandoned.
    pub(super) overdue_save: Option<Duration>,
    /// Checkpoints in a row that could not be stored.
    pub(super) save_failures: u32,
    pub(super) cost: Cost,
    /// Why the run is to be saved and left.
    pub(super) stopping: Option<String>,
    /// Redone attempts of the current step with all members alive.
    pub(super) redone: u32,
    /// Attempts to write the last checkpoint.
    pub(super) last_saves: u32,
    pub(super) progress: Progress,
    pub(super) records: Records,
    pub(super) spending: Spending,
    pub(super) counted: Counted,
    pub(super) actions: Vec<Action>,
    #[cfg(feature = "planted-bugs")]
    pub(super) planted: Option<PlantedBug>,
}

/// A worker that is connected and accepted.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) session: SessionId,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) joined: Duration,
    pub(super) last_seen: Duration,
    /// It has loaded the run's models and can enter an epoch.
    pub(super) is_ready: bool,
    /// It was part of this run before it joined.
    pub(super) has_rejoined: bool,
    /// The state it is known to hold.
    pub(super) held: Option<Held>,
    pub(super) is_leaving: bool,
    /// Failed attempts in a row in which others suspected it.
    pub(super) strikes: u32,
    /// How many others suspected it in these.
    pub(super) accusers: u32,
    /// Parts of checkpoints in a row that it could not store though others could store theirs.
    pub(super) part_failures: u32,
    pub(super) data_wait_share: f64,
    /// What it computes on, once it is ready.
    pub(super) device: Option<WorkerDevice>,
    /// How much of that was used after its last step.
    pub(super) device_use: Option<DeviceUse>,
}

impl Member {
    /// Where it is from: its name alone may be that of many.
    pub(super) fn place(&self) -> String {
        place(&self.name, &self.address)
    }
}

/// A state that a member holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Committed steps.
    pub(super) step: u64,
    /// What they used.
    pub(super) coverage: StageCoverage,
}

/// A checkpoint as far as the run needs to know it.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) name: String,
    /// Committed steps.
    pub(super) step: u64,
    pub(super) coverage: StageCoverage,
}

/// When the leadership was last looked at.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    pub(super) asked: Duration,
    pub(super) is_open: bool,
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
            hand_over: HandOver::default(),
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
            records: Records::default(),
            spending: Spending::new(start.began),
            counted: Counted::default(),
            actions: Vec::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        };
        machine.sort_rows();
        machine.spending.learn(machine.spec.earlier.iter().map(|(step, spent)| (*step, *spent)));
        machine
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    pub(super) fn member_of(&self, session: SessionId) -> Option<u32> {
        self.members.iter().find(|(_, member)| member.session == session).map(|(id, _)| *id)
    }

    pub(super) fn is_in_world(&self, id: u32) -> bool {
        self.world.iter().any(|(member, _)| *member == id)
    }

    /// Whether a member is part of the current epoch or of the one being taken.
    pub(super) fn is_involved(&self, id: u32) -> bool {
        let elected = match &self.phase {
            Phase::Electing(election) => election.members.iter().any(|(member, _)| *member == id),
            _ => false,
        };
        elected || self.is_in_world(id)
    }

    pub(super) fn send(&mut self, id: u32, message: ToWorker) {
        if let Some(member) = self.members.get(&id) {
            self.actions.push(Action::Send { session: member.session, message });
        }
    }

    /// Sends to all members of the current epoch.
    pub(super) fn send_to_world(&mut self, message: &ToWorker) {
        let ids: Vec<u32> = self.world.iter().map(|(id, _)| *id).collect();
        for id in ids {
            self.send(id, message.clone());
        }
    }
}
