//! The state machine of a run: events in, actions out. No clock, no network, no store.

mod checks;
mod ending;
mod joining;
mod membership;
mod progress;
mod saving;
mod stepping;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use blip2_dataset::QuarantineList;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{Hello, NamedValue, StepDone};

use crate::machine::progress::Progress;
use crate::machine::saving::Save;
use crate::{CheckpointRecord, CheckpointSettings, CoordinatorSettings, EpochMember, RunSpec, Schedule};

/// One connection of a worker, numbered by the shell.
pub type SessionId = u64;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A worker connected and introduced itself.
    Joined {
        /// Its connection.
        session: SessionId,
        /// Its introduction.
        hello: Hello,
    },
    /// A worker reported.
    Message {
        /// Its connection.
        session: SessionId,
        /// The report.
        message: FromWorker,
    },
    /// A connection ended.
    Disconnected {
        /// The connection.
        session: SessionId,
    },
    /// Time passed.
    Tick,
    /// [`Action::TakeEpoch`] came to its end.
    EpochTaken {
        /// The epoch.
        epoch: u64,
        /// Whether it is ours.
        result: Result<(), StoreFailure>,
    },
    /// [`Action::StoreCommit`] came to its end.
    CommitStored {
        /// Name of the checkpoint.
        name: String,
        /// Whether the checkpoint was written and read back.
        result: Result<(), StoreFailure>,
    },
    /// The run shall be saved and left.
    StopRequested {
        /// By what.
        reason: String,
    },
}

/// Why an object could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFailure {
    /// Another coordinator leads this run.
    Fenced(String),
    /// The store failed.
    Failed(String),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send to a worker; messages of one connection keep their order.
    Send {
        /// Its connection.
        session: SessionId,
        /// The message.
        message: ToWorker,
    },
    /// End a connection, after what was sent.
    Close {
        /// The connection.
        session: SessionId,
    },
    /// Create the object of a membership epoch if it is free.
    TakeEpoch {
        /// Number of the epoch.
        epoch: u64,
        /// The step to do next.
        step: u64,
        /// The members with their slots.
        members: Vec<EpochMember>,
    },
    /// Write a checkpoint's COMMIT, if `epoch` is still the newest; then retire older checkpoints.
    StoreCommit {
        /// The checkpoint, with all of its parts.
        record: CheckpointRecord,
        /// The newest epoch of this coordinator.
        epoch: u64,
        /// Checkpoints that are being written meanwhile.
        in_progress: Vec<String>,
    },
    /// Write the list of quarantined rows.
    StoreQuarantine(QuarantineList),
    /// Tell who records the metrics.
    Report(CommittedStep),
    /// The run is over.
    Finish(Outcome),
}

/// A step that was committed, reported exactly once.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedStep {
    /// Index of the step, through all stages.
    pub step: u64,
    /// Its stage, from 1.
    pub stage: u32,
    /// The membership epoch that did it.
    pub epoch: u64,
    /// Losses and learning rate of the global batch.
    pub values: Vec<NamedValue>,
    /// Seconds the slowest member took.
    pub seconds: f64,
    /// Seconds the member that waited longest waited for data.
    pub data_wait_seconds: f64,
    /// Samples of the global batch.
    pub samples: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are committed.
    Done {
        /// The last checkpoint.
        checkpoint: String,
    },
    /// It was stopped and can be continued.
    Interrupted {
        /// The newest checkpoint; `None`: nothing was saved yet.
        checkpoint: Option<String>,
    },
    /// It failed.
    Failed {
        /// The exit code of the command line for this class of error.
        exit_code: u32,
        /// What, where and what to do.
        message: String,
    },
}

/// Membership, steps and checkpoints of one run.
///
/// Feed it every event with the time since its start, and a [`Event::Tick`] several times a second; do the actions in
/// order. Every wait of the machine has a deadline that a tick ends.
#[derive(Debug)]
pub struct Machine {
    spec: RunSpec,
    settings: CoordinatorSettings,
    checkpoints: CheckpointSettings,
    schedule: Schedule,
    now: Duration,
    phase: Phase,
    /// The newest epoch taken or being taken.
    epoch: u64,
    /// Committed steps.
    committed: u64,
    /// Every worker that is connected and accepted, by member id.
    members: BTreeMap<u32, Member>,
    next_member: u32,
    /// Members of the current epoch with their slots, in slot order; empty between epochs.
    world: Vec<(u32, Range<u32>)>,
    /// Checkpoints that are being written, by name.
    saves: BTreeMap<String, Save>,
    /// The newest checkpoint with a COMMIT: name and committed steps.
    last_checkpoint: Option<(String, u64)>,
    /// The next commit saves, because a checkpoint was abandoned.
    save_is_overdue: bool,
    /// Why the run is to be saved and left.
    stopping: Option<String>,
    /// Redone attempts of the current step with all members alive.
    redone: u32,
    /// Attempts to write the last checkpoint.
    last_saves: u32,
    quarantine: QuarantineList,
    progress: Progress,
    actions: Vec<Action>,
}

/// What the machine waits for.
#[derive(Debug)]
enum Phase {
    /// For workers.
    Gathering { wanted: usize, until: Duration },
    /// For the epoch's object.
    Electing { until: Duration, members: Vec<(u32, Range<u32>)>, then: AfterElection },
    /// For the members' reports.
    Stepping { since: Duration, reports: BTreeMap<u32, Report> },
    /// After an attempt failed: for news of who is gone.
    Settling { since: Duration, until: Duration, reports: BTreeMap<u32, Report> },
    /// For the last checkpoint.
    Saving,
    /// For nothing.
    Ended(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterElection {
    Step,
    Save,
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
    last_seen: Duration,
    /// Committed steps of the state it holds.
    holds: Option<u64>,
    leaving: bool,
    /// Failed attempts in a row in which others suspected it.
    strikes: u32,
    data_wait_share: f64,
}

impl Machine {
    /// A machine for a run of which this coordinator has taken `epoch`, with the rows quarantined so far.
    pub fn new(
        spec: RunSpec,
        settings: CoordinatorSettings,
        checkpoints: CheckpointSettings,
        epoch: u64,
        quarantine: QuarantineList,
    ) -> Self {
        let schedule = spec.schedule();
        let last_checkpoint = spec.resume.as_ref().map(|record| (record.name.clone(), record.step));
        let committed = last_checkpoint.as_ref().map_or(0, |(_, step)| *step);
        let phase = Phase::Gathering { wanted: settings.workers as usize, until: settings.join_timeout() };
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
            phase,
            epoch,
            committed,
            members: BTreeMap::new(),
            next_member: 0,
            world: Vec::new(),
            saves: BTreeMap::new(),
            last_checkpoint,
            save_is_overdue: false,
            stopping: None,
            redone: 0,
            last_saves: 0,
            quarantine,
            progress,
            actions: Vec::new(),
        };
        machine.forget_uncommitted_rows();
        machine
    }

    /// Takes in what happened at `now` (since the machine's start) and says what to do, in order.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        if !self.is_ended() {
            self.take_in(event);
        } else if let Event::Joined { session, .. } = event {
            self.refuse_closed(session);
        }
        std::mem::take(&mut self.actions)
    }

    fn take_in(&mut self, event: Event) {
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
            FromWorker::Heartbeat(_) | FromWorker::Ready(_) | FromWorker::PartFailed(_) => {}
            FromWorker::StepDone(done) => self.step_done(id, done),
            FromWorker::StepFailed(failed) => self.step_failed(id, failed),
            FromWorker::PartWritten(part) => self.part_written(id, part),
            FromWorker::Leaving(_) => self.leaving(id),
            FromWorker::Failed(failed) => self.worker_failed(id, failed),
        }
    }

    fn tick(&mut self) {
        self.check_heartbeats();
        self.check_saves();
        match &self.phase {
            Phase::Gathering { .. } if self.committed == self.schedule.total() && self.is_saved() => {
                self.conclude()
            }
            Phase::Gathering { until, .. } if self.now >= *until => self.gathering_timed_out(),
            Phase::Electing { until, .. } if self.now >= *until => {
                self.fail(
                    1,
                    format!("membership epoch {} could not be written to the store in time", self.epoch),
                );
            }
            Phase::Stepping { since, .. } if self.now >= *since + self.step_patience() => {
                self.step_timed_out()
            }
            Phase::Settling { until, .. } if self.now >= *until => self.settled(),
            _ => {}
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
            Phase::Electing { members, .. } => members.iter().any(|(member, _)| *member == id),
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
