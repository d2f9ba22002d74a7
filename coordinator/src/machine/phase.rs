//! What the machine waits for, with the deadlines of each wait.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use blip2_proto::v1::{StepDone, Stop};
use blip2_run::epoch::EpochMember;

use crate::CoordinatorSettings;

/// What the machine waits for.
#[derive(Debug)]
pub(super) enum Phase {
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
    pub(super) fn put_off(&mut self, by: Duration) {
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
pub(super) enum Report {
    Done(StepDone),
    Failed { reason: String, suspects: Vec<u32> },
}

/// A wait for workers.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) why: Why,
    /// When it fails.
    pub(super) until: Duration,
    /// From when on those who are there go on without others who might hold a newer state.
    pub(super) grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The run begins.
    Start,
    /// Another coordinator led this many members, who may come back with a newer state than the checkpoint.
    TakeOver(usize),
    /// Too few are left, or nobody holds the committed state.
    Refill,
}

impl Gathering {
    /// The wait with which a coordinator begins.
    pub(super) fn first(settings: &CoordinatorSettings, expected_members: usize) -> Self {
        let (join, rejoin) = (settings.join_timeout(), settings.rejoin_timeout());
        match expected_members {
            0 => Self { why: Why::Start, until: join, grace: Duration::ZERO },
            expected => {
                Self { why: Why::TakeOver(expected), until: join.max(rejoin), grace: settings.rejoin_grace() }
            }
        }
    }

    /// Moves its deadlines.
    pub(super) fn put_off(&mut self, by: Duration) {
        self.until += by;
        self.grace += by;
    }
}

/// An epoch that is being taken.
#[derive(Debug)]
pub(super) struct Election {
    pub(super) until: Duration,
    /// After a failed attempt: when to try again.
    pub(super) retry: Option<Duration>,
    pub(super) has_failed: bool,
    pub(super) members: Vec<(u32, Range<u32>)>,
    /// What the object says; every attempt says the same.
    pub(super) record: Vec<EpochMember>,
    pub(super) back_from: Option<u64>,
    pub(super) then: AfterElection,
}

impl Election {
    /// Moves its deadline.
    pub(super) fn put_off(&mut self, by: Duration) {
        self.until += by;
    }
}

/// What an epoch is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterElection {
    Step,
    Save,
}

/// How it ended for this coordinator.
#[derive(Debug)]
pub(super) enum Ending {
    /// The run is over, and all members are told this.
    Told { state: &'static str, stop: Stop },
    /// Another coordinator leads it.
    Fenced,
    /// The same, and it was asked to.
    HandedOver,
}

impl Ending {
    pub(super) fn state(&self) -> &'static str {
        match self {
            Self::Told { state, .. } => state,
            Self::Fenced => "failed",
            Self::HandedOver => "handed over",
        }
    }
}
