//! A member's life as a state machine: events in, actions out. No clock, no network, no compute.
//!
//! The shell ([`crate::run`]) opens sessions, runs the compute thread and stores parts; a simulation puts
//! others in their place and drives the very code that runs in production.

mod ledger;
mod link;
#[cfg(feature = "planted-bugs")]
mod planted;
#[cfg(test)]
mod tests;
mod working;

use std::collections::VecDeque;
use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as FromCoordinator;
use blip2_proto::v1::worker_message::Kind as ToCoordinator;
use blip2_proto::v1::{Assignment, Commit, Ledger, PartFailed, PartWritten, StepDone, Welcome};

use self::link::{Link, RunIdentity};
#[cfg(feature = "planted-bugs")]
pub use self::planted::PlantedBug;
use self::working::{Order, WorldStep};

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

/// One member of a run.
///
/// Feed it every event with the time since its start, and a [`MemberEvent::Tick`] several times a second, the
/// first to begin; do the actions in order. Compute gets one order at a time and answers each once.
#[derive(Debug)]
pub struct MemberMachine {
    identity: MemberIdentity,
    settings: MemberSettings,
    now: Duration,
    link: Link,
    /// The next attempt to open a session.
    attempt: u32,
    /// When to give up looking for a coordinator; `None` while there is one.
    give_up_at: Option<Duration>,
    /// What went wrong with the last session.
    problem: String,
    /// The run, once a coordinator has named it.
    run: Option<RunIdentity>,
    member_id: Option<u32>,
    /// The newest membership epoch known of.
    epoch: u64,
    prepared: bool,
    /// Asked to go.
    leaving: bool,
    /// The epoch assigned in this session.
    assigned: Option<u64>,
    /// An assignment that compute has not been told of yet.
    wanted: Option<Assignment>,
    /// Saves that wait for compute.
    saves: VecDeque<Commit>,
    /// The newest checkpoint of which a part was ordered.
    saved: String,
    /// What compute does.
    order: Option<Order>,
    /// The ledger of the assignment that compute is entering.
    entering: Option<Ledger>,
    /// The epoch compute has entered, and its next step.
    world: Option<WorldStep>,
    /// The next step is to be begun.
    due: bool,
    /// Epoch and step of the reduced gradient that waits for its commit.
    pending: Option<(u64, u64)>,
    /// Epochs up to this one were aborted.
    aborted: u64,
    /// Committed steps behind the state held.
    holds: Option<u64>,
    ledger: Ledger,
    actions: Vec<MemberAction>,
    #[cfg(feature = "planted-bugs")]
    planted: Option<PlantedBug>,
}

impl MemberMachine {
    /// A member that has not met a coordinator; the first tick makes it look for one.
    pub fn new(identity: MemberIdentity, settings: MemberSettings) -> Self {
        Self {
            identity,
            settings,
            now: Duration::ZERO,
            link: Link::New,
            attempt: 0,
            give_up_at: None,
            problem: String::new(),
            run: None,
            member_id: None,
            epoch: 0,
            prepared: false,
            leaving: false,
            assigned: None,
            wanted: None,
            saves: VecDeque::new(),
            saved: String::new(),
            order: None,
            entering: None,
            world: None,
            due: false,
            pending: None,
            aborted: 0,
            holds: None,
            ledger: Ledger::default(),
            actions: Vec::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    /// Takes in what happened at `now` (since the machine's start) and says what to do, in order.
    pub fn step(&mut self, now: Duration, event: MemberEvent) -> Vec<MemberAction> {
        self.now = self.now.max(now);
        if !self.is_over() {
            self.take_in(event);
        }
        std::mem::take(&mut self.actions)
    }

    /// The number the coordinator last followed gave this member.
    pub fn member_id(&self) -> Option<u32> {
        self.member_id
    }

    /// The newest membership epoch known of; 0: none.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Committed steps behind the state held; `None`: no state is held.
    pub fn holds(&self) -> Option<u64> {
        self.holds
    }

    /// What is known of the committed steps behind the state held.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether a coordinator has taken this member in.
    pub fn is_joined(&self) -> bool {
        matches!(self.link, Link::Joined { .. })
    }

    /// Whether [`MemberAction::Finish`] was given out.
    pub fn is_over(&self) -> bool {
        matches!(self.link, Link::Over)
    }

    fn take_in(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Opened => self.opened(),
            MemberEvent::Closed { reason } => self.closed(reason),
            MemberEvent::Received(message) => self.received(message),
            MemberEvent::Prepared => self.prepared(),
            MemberEvent::Entered { epoch, step, result } => self.entered(epoch, step, result),
            MemberEvent::Reduced { epoch, step, result } => self.reduced(epoch, step, result),
            MemberEvent::Applied { step } => self.applied(step),
            MemberEvent::PartStored(part) => self.tell(ToCoordinator::PartWritten(part)),
            MemberEvent::PartFailed(failed) => self.tell(ToCoordinator::PartFailed(failed)),
            MemberEvent::Failed { exit_code, message } => self.failed(exit_code, message),
            MemberEvent::RunOver { how } => self.run_over(&how),
            MemberEvent::LeaveRequested => self.leave_requested(),
            MemberEvent::Tick => self.tick(),
        }
    }

    /// Sends if a coordinator has taken this member in; what it missed otherwise, it asks for again.
    fn tell(&mut self, message: ToCoordinator) {
        if self.is_joined() {
            self.actions.push(MemberAction::Send(message));
        }
    }

    fn finish(&mut self, end: MemberEnd) {
        self.link = Link::Over;
        self.actions.push(MemberAction::Finish(end));
    }
}
