//! What a simulated process takes in and gives out: the shells around the machines of production.

use blip2_dataset::quarantine::QuarantineList;
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::EpochRecord;

use crate::compute::{Held, Push};
use crate::invariants::Fact;
use crate::network::{Content, SessionId};
use crate::store::{Reply, Request};

/// Something a process finds.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// Its clock ticks.
    Tick,
    /// A worker has connected.
    Opened(SessionId),
    /// The connection a worker asked for is open.
    Connected { attempt: u64, session: SessionId },
    /// The connection a worker asked for could not be opened.
    OpenFailed { attempt: u64, reason: String },
    /// Something arrived on a connection.
    Arrived(SessionId, Box<Content>),
    /// The store has answered.
    Stored { ticket: Box<Ticket>, reply: Result<Reply, String> },
    /// A time it had set has come.
    Woken(Wake),
    /// The coordinator asked for its status answered, or not in time.
    Probed { answer: Option<Leading> },
    /// A coordinator that stands by asked for the status.
    Asked { standby: String },
    /// Another member's buffer.
    Received(Push),
    /// A buffer that could not be delivered.
    PushFailed(Push),
    /// A peer's state: `None` if it does not hand it out yet.
    Fetched { token: u64, found: Result<Option<Held>, String> },
    /// SIGTERM.
    Terminate,
}

/// Why a process wakes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Of a worker's compute side.
    Compute(u64),
    /// A worker is to try this opening.
    Open(u64),
    /// A worker is to look for another leader.
    Watch,
    /// A worker's models are loaded.
    Prepared,
    /// A coordinator is to look for the leader again.
    Probe,
    /// A process has ended its farewell.
    Leave,
}

/// What a question to the store was for.
#[derive(Debug, Clone)]
pub(crate) enum Ticket {
    /// A worker's part of a checkpoint.
    Part { checkpoint: String, name: String },
    /// A state for a worker to enter with.
    State { token: u64 },
    /// The leader's address, for a worker's opening.
    Leader { opening: u64 },
    /// The newest epoch, for a coordinator that stands by or a worker in a session.
    Watch,
    /// The checkpoint to begin with.
    Latest,
    /// The newest epoch, for one that begins.
    Epochs,
    /// The first epoch of one that begins.
    Begin { epoch: u64 },
    /// The checkpoint again, now that the leader before writes none any more.
    LatestAgain,
    /// The members of the epochs before it.
    Expected,
    /// The rows that are known to be unusable.
    Rows,
    /// The next epoch of a leader.
    Take { epoch: u64 },
    /// Whether a leader still leads.
    Confirm { epoch: u64 },
    /// The same, before a COMMIT is written.
    ConfirmCommit(PendingCommit),
    /// The COMMIT.
    Commit(PendingCommit),
    /// The older checkpoints.
    Retire { name: String },
    /// The run's copy of the list of rows.
    Copy,
    /// The epoch that closes the run's coordination.
    Close,
}

/// A COMMIT being written.
#[derive(Debug, Clone)]
pub(crate) struct PendingCommit {
    pub(crate) record: Box<CheckpointRecord>,
    pub(crate) quarantine: QuarantineList,
    pub(crate) epoch: u64,
    pub(crate) in_progress: Vec<String>,
}

/// Something a process does.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// Send on a connection.
    Post { session: SessionId, to_worker: bool, content: Content },
    /// Read no more from a connection.
    Drop { session: SessionId },
    /// Take a connection in.
    Accept { session: SessionId },
    /// Open a connection to a coordinator's address.
    Connect { attempt: u64, address: String },
    /// Ask the store.
    Ask { ticket: Box<Ticket>, request: Request },
    /// Wake up later.
    After { delay: u64, wake: Wake },
    /// Send a buffer to another member.
    Push { address: String, push: Push },
    /// Ask a member for its state.
    Fetch { address: String, step: u64, token: u64 },
    /// Ask a coordinator for its status.
    Probe { address: String },
    /// Let the invariants know.
    Observe(Fact),
    /// A worker's process ends.
    Exit { is_failure: bool, reason: String },
    /// A coordinator's process ends.
    Conclude(Conclusion),
}

/// What a coordinator that leads answers one that stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leading {
    /// Whether it waits for workers, and how many it has.
    pub(crate) waits: bool,
    pub(crate) workers: usize,
    /// It was asked to go: the one that stands by is to take over.
    pub(crate) hands_over: bool,
}

/// How a coordinator ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Conclusion {
    /// The run is done, with this checkpoint.
    Done(String),
    /// It was stopped.
    Interrupted,
    /// Another one leads.
    Fenced,
    /// The same, as it was asked to go.
    HandedOver,
    /// The run was concluded by another one.
    AlreadyOver,
    /// The store failed before it led.
    NotBegun(String),
    /// It failed.
    Failed(String),
}

/// The newest of these epochs.
pub(crate) fn newest(epochs: &[EpochRecord]) -> Option<&EpochRecord> {
    epochs.iter().max_by_key(|record| record.epoch)
}
