//! What the machine takes in and what it asks for.

use std::time::Duration;

use blip2_dataset::quarantine::QuarantineList;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{CommittedStep, Hello};
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::EpochMember;

/// One connection of a worker, numbered by the shell.
pub type SessionId = u64;

/// Where a coordinator begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// The epoch it has taken.
    pub epoch: u64,
    /// Members of the last epoch that had any, if that coordinator did not end the run: they may come back
    /// with a newer state than the checkpoint. 0: none are expected.
    pub expected_members: usize,
    /// Rows known to be unusable, of any step: those of later steps than the run's are kept until it gets
    /// there.
    pub quarantine: QuarantineList,
    /// All workers are processes of one machine, started in the same way: before the first step, what one of
    /// them cannot do none can.
    pub on_one_machine: bool,
    /// When it began to lead: the time since 1970 by the clock of this host. It is told with what the run's
    /// time was spent on, and decides nothing.
    pub began: Duration,
}

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
    /// [`Action::ConfirmEpoch`] came to its end.
    EpochConfirmed {
        /// [`StoreFailure::Fenced`] when another coordinator leads.
        result: Result<(), StoreFailure>,
    },
    /// [`Action::StoreCommit`] came to its end.
    CommitStored {
        /// Name of the checkpoint.
        name: String,
        /// Whether the checkpoint was written and read back.
        result: Result<(), StoreFailure>,
    },
    /// The records of the first steps are kept for good.
    Recorded {
        /// So many of them.
        steps: u64,
    },
    /// The run shall be saved and left.
    StopRequested {
        /// By what.
        reason: String,
    },
    /// This process shall go: a coordinator that stands by takes over; where there is none, the run is saved
    /// and left.
    DrainRequested {
        /// By what.
        reason: String,
    },
    /// A coordinator that stands by asked how the run is.
    StandbyAsked {
        /// Its URL.
        standby: String,
    },
    /// A coordinator stands by no longer.
    StandbyLeft {
        /// Its URL.
        standby: String,
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
    /// Create the object of a membership epoch if it is free. One that this coordinator created before is its
    /// own: the answer to an earlier attempt was lost.
    TakeEpoch {
        /// Number of the epoch.
        epoch: u64,
        /// The step to do next.
        step: u64,
        /// The members with their slots.
        members: Vec<EpochMember>,
        /// Committed steps that are lost with all who held their state, if the run goes back from there to
        /// `step`.
        back_from: Option<u64>,
    },
    /// Look whether the newest epoch's object is this coordinator's.
    ConfirmEpoch {
        /// The newest epoch of this coordinator, taken or being taken.
        epoch: u64,
    },
    /// If the newest epoch is this coordinator's: write the checkpoint's list of quarantined rows, then its
    /// COMMIT with the list's length and digest; then retire older checkpoints.
    StoreCommit {
        /// The checkpoint, with all of its parts.
        record: Box<CheckpointRecord>,
        /// The rows quarantined up to its step.
        quarantine: QuarantineList,
        /// The newest epoch of this coordinator.
        epoch: u64,
        /// Checkpoints that are being written meanwhile.
        in_progress: Vec<String>,
    },
    /// Write the run's copy of the list of quarantined rows.
    StoreQuarantine(QuarantineList),
    /// Tell who records the metrics of a committed step, once for each. A coordinator that takes over tells
    /// again of those of which the members do not know that their records are kept.
    Report(CommittedStep),
    /// The run is over for this coordinator.
    Finish(Outcome),
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
    /// This coordinator was asked to go, and one that stood by leads the run.
    HandedOver,
    /// It failed, or another coordinator leads it (exit code 4).
    Failed {
        /// The exit code of the command line for this class of error.
        exit_code: u32,
        /// What, where and what to do.
        message: String,
    },
}
