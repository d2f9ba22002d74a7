//! What a member is told, and what it says is to be done.

use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as FromCoordinator;
use blip2_proto::v1::worker_message::Kind as ToCoordinator;
use blip2_proto::v1::{Assignment, Commit, PartFailed, PartWritten, StepDone, Welcome};

/// What a member says of itself to a coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberIdentity {
    /// The run's token.
    pub token: String,
    /// Identifies the executable; members of a run have the same.
    pub binary: String,
    /// Where peers reach this member, host:port.
    pub exchange_address: String,
    /// For logs and the status page.
    pub name: String,
    /// Hash of the configuration the member insists on; empty: any.
    pub config_hash: String,
}

/// How long a member looks for a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberSettings {
    /// Until the first one has taken it in.
    pub join_timeout: Duration,
    /// After a session ended without a stop; zero: not at all.
    pub reconnect_timeout: Duration,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum MemberEvent {
    /// The session asked for is open.
    Opened,
    /// It could not be opened, or has ended.
    Closed {
        /// What happened.
        reason: String,
    },
    /// A message of the open session.
    Received(FromCoordinator),
    /// Compute has loaded the run's models and is warm.
    Prepared,
    /// Compute has done [`MemberAction::Enter`]: it holds the state after `step` steps, in the world of
    /// `epoch`.
    Entered {
        /// The assignment's epoch.
        epoch: u64,
        /// The assignment's step.
        step: u64,
        /// Whether it could.
        result: Result<(), Failure>,
    },
    /// Compute has done [`MemberAction::Reduce`].
    Reduced {
        /// The epoch whose members took part.
        epoch: u64,
        /// The step.
        step: u64,
        /// What to report; the gradient is pending.
        result: Result<StepDone, Failure>,
    },
    /// Compute has done [`MemberAction::Apply`].
    Applied {
        /// Index of the committed step.
        step: u64,
    },
    /// A checkpoint part is in the store.
    PartStored(PartWritten),
    /// A checkpoint part could not be stored.
    PartFailed(PartFailed),
    /// The compute side cannot go on.
    Failed {
        /// The exit code of the command line for this class of error.
        exit_code: u32,
        /// What, where and what to do.
        message: String,
    },
    /// No coordinator is there, and the newest epoch object says that the run is over: `done`, `interrupted`
    /// or `failed`.
    RunOver {
        /// How it ended.
        how: String,
    },
    /// The process was asked to go.
    LeaveRequested,
    /// Time passed.
    Tick,
}

/// Why compute could not enter an epoch or complete a step, without being to blame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub reason: String,
    /// Members that did not answer in time.
    pub suspects: Vec<u32>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum MemberAction {
    /// Open a session with a candidate, `attempt` modulo their number, and answer with
    /// [`MemberEvent::Opened`] or [`MemberEvent::Closed`]. An opening under way is given up.
    Open {
        /// Attempts since the last coordinator was followed.
        attempt: u32,
        /// How long to wait before.
        after: Duration,
    },
    /// Send in the open session; messages keep their order.
    Send(ToCoordinator),
    /// End the session; its end is no event.
    Close,
    /// Load the run's models and warm up, then answer with [`MemberEvent::Prepared`]. Comes once.
    Prepare(Welcome),
    /// Enter an epoch's world with the state after its steps; answered by [`MemberEvent::Entered`].
    Enter {
        /// The epoch, its members and where the state is.
        assignment: Assignment,
        /// The pending gradient leads to that state: apply it instead of copying.
        apply_pending: bool,
    },
    /// Compute and reduce the gradient of a step, which is then pending in place of any other; answered by
    /// [`MemberEvent::Reduced`].
    Reduce {
        /// The epoch entered.
        epoch: u64,
        /// The step: the number of steps behind the state held.
        step: u64,
    },
    /// Apply the pending gradient and hand out a checkpoint part if the commit asks for one; answered by
    /// [`MemberEvent::Applied`]. A commit of the step before the next one asks for the part alone.
    Apply(Commit),
    /// End the collectives and copies of this epoch and of older ones, now.
    Abort {
        /// The epoch.
        epoch: u64,
        /// Why.
        reason: String,
    },
    /// The member's life is over; nothing follows.
    Finish(MemberEnd),
}

/// How a member's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEnd {
    /// The run is done.
    Done,
    /// The run was interrupted with a checkpoint saved.
    Interrupted,
    /// This member was released; the run continues without it.
    Released,
    /// This member was asked to go while no coordinator was there to release it.
    Left {
        /// What becomes of its state.
        reason: String,
    },
    /// The run or this member failed.
    Failed {
        /// The exit code of the command line.
        exit_code: u32,
        /// What, where and what to do.
        reason: String,
    },
    /// The coordinator does not take this member.
    Refused {
        /// What differs and what to do.
        reason: String,
    },
    /// No coordinator took this member in time.
    Unreachable {
        /// What was tried last.
        reason: String,
    },
}
