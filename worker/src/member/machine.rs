//! What a member knows.

use std::collections::VecDeque;
use std::time::Duration;

use blip2_proto::v1::worker_message::Kind as ToCoordinator;
use blip2_proto::v1::{Assignment, Commit, Ledger};

use super::interface::{MemberAction, MemberEnd, MemberIdentity, MemberSettings};
#[cfg(feature = "planted-bugs")]
use super::planted::PlantedBug;
use super::standing::{Link, Order, RunIdentity, WorldStep};

/// One member of a run.
///
/// Feed it every event with the time since its start, and a [`Tick`](super::MemberEvent::Tick) several times
/// a second, the first to begin; do the actions in order. Compute gets one order at a time and answers each
/// once.
#[derive(Debug)]
pub struct MemberMachine {
    pub(super) identity: MemberIdentity,
    pub(super) settings: MemberSettings,
    pub(super) now: Duration,
    pub(super) link: Link,
    /// The next attempt to open a session.
    pub(super) attempt: u32,
    /// When to give up looking for a coordinator; `None` while there is one.
    pub(super) give_up_at: Option<Duration>,
    /// What went wrong with the last session.
    pub(super) problem: String,
    /// The run, once a coordinator has named it.
    pub(super) run: Option<RunIdentity>,
    pub(super) member_id: Option<u32>,
    /// The newest membership epoch known of.
    pub(super) epoch: u64,
    pub(super) prepared: bool,
    /// Asked to go.
    pub(super) leaving: bool,
    /// The epoch assigned in this session.
    pub(super) assigned: Option<u64>,
    /// An assignment that compute has not been told of yet.
    pub(super) wanted: Option<Assignment>,
    /// Saves that wait for compute.
    pub(super) saves: VecDeque<Commit>,
    /// The newest checkpoint of which a part was ordered.
    pub(super) saved: String,
    /// What compute does.
    pub(super) order: Option<Order>,
    /// The ledger of the assignment that compute is entering.
    pub(super) entering: Option<Ledger>,
    /// The epoch compute has entered, and its next step.
    pub(super) world: Option<WorldStep>,
    /// The next step is to be begun.
    pub(super) due: bool,
    /// Epoch and step of the reduced gradient that waits for its commit.
    pub(super) pending: Option<(u64, u64)>,
    /// Epochs up to this one were aborted.
    pub(super) aborted: u64,
    /// Committed steps behind the state held.
    pub(super) holds: Option<u64>,
    pub(super) ledger: Ledger,
    pub(super) actions: Vec<MemberAction>,
    #[cfg(feature = "planted-bugs")]
    pub(super) planted: Option<PlantedBug>,
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

    /// The number the coordinator last followed gave this member.
    pub fn member_id(&self) -> Option<u32> {
        self.member_id
    }

    /// The run by its name, once a coordinator has named it.
    pub fn run_id(&self) -> Option<&str> {
        self.run.as_ref().map(|run| run.run_id.as_str())
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

    /// Whether the run's models are in memory.
    pub fn is_prepared(&self) -> bool {
        self.prepared
    }

    /// Whether [`MemberAction::Finish`] was given out.
    pub fn is_over(&self) -> bool {
        matches!(self.link, Link::Over)
    }

    /// Sends if a coordinator has taken this member in; what it missed otherwise, it asks for again.
    pub(super) fn tell(&mut self, message: ToCoordinator) {
        if self.is_joined() {
            self.actions.push(MemberAction::Send(message));
        }
    }

    pub(super) fn finish(&mut self, end: MemberEnd) {
        self.link = Link::Over;
        self.actions.push(MemberAction::Finish(end));
    }

    /// Plants a bug.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: PlantedBug) {
        self.planted = Some(bug);
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn has(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }
}
