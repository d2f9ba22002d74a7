//! Where the time of a lead goes, and which steps were done again.

use std::collections::BTreeMap;
use std::time::Duration;

use blip2_proto::v1::Spent;

use super::phase::Phase;
use super::times::{Times, Told};

/// Why a step is done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Redone {
    /// A worker was lost in it.
    MemberLost,
    /// It failed with all workers alive.
    Failed,
    /// It was not done in time.
    Deadline,
    /// It was committed, and its state was lost with all who held it.
    StateLost,
}

impl Redone {
    fn name(self) -> &'static str {
        match self {
            Self::MemberLost => "member_lost",
            Self::Failed => "failed",
            Self::Deadline => "deadline",
            Self::StateLost => "state_lost",
        }
    }
}

/// What the time since the lead began was spent on (the parts of `own` add up to it), and the time before.
#[derive(Debug, Default)]
pub(super) struct Spending {
    /// When the lead began, since 1970. It is told and decides nothing.
    began: Duration,
    /// All before is spent.
    until: Duration,
    /// Of the attempt at hand.
    attempt: Duration,
    /// Why that came to nothing, once it has.
    ended: Option<Redone>,
    /// Stalls for checkpoints that belong to the next committed attempts.
    owed: Duration,
    own: Times,
    /// What coordinators before had spent in all when they committed these steps.
    earlier: BTreeMap<u64, Told>,
    /// The time before, once it is known with which step this one goes on.
    carried: Option<Times>,
    redone: BTreeMap<Redone, u64>,
}

impl Spending {
    pub(super) fn new(began: Duration) -> Self {
        Self { began, ..Self::default() }
    }

    /// The time up to `now` was spent in `phase`; whether any step was begun before.
    pub(super) fn pass(&mut self, now: Duration, phase: &Phase, has_begun: bool) {
        let passed = now.saturating_sub(std::mem::replace(&mut self.until, now));
        let is_attempt = matches!(phase, Phase::Stepping { .. } | Phase::Settling { .. });
        if !is_attempt && !self.attempt.is_zero() {
            self.own.wasted += std::mem::take(&mut self.attempt);
            if !matches!(phase, Phase::Ended(_)) {
                self.count(self.ended.unwrap_or(Redone::Failed), 1);
            }
            self.ended = None;
        }
        match phase {
            Phase::Stepping { .. } | Phase::Settling { .. } => self.attempt += passed,
            Phase::Gathering(_) | Phase::Electing(_) if has_begun => self.own.restore += passed,
            Phase::Gathering(_) | Phase::Electing(_) => self.own.start_up += passed,
            Phase::Saving { .. } => self.own.save += passed,
            Phase::Ended(_) => {}
        }
    }

    /// The attempt at hand came to nothing; the first reason counts.
    pub(super) fn attempt_ended(&mut self, why: Redone) {
        if !self.attempt.is_zero() {
            self.ended.get_or_insert(why);
        }
    }

    /// The attempt at hand is committed, for the first time or once more; so long it waited for data.
    pub(super) fn committed(&mut self, is_new: bool, waited: f64) {
        let mut rest = std::mem::take(&mut self.attempt);
        self.ended = None;
        if !is_new {
            self.own.wasted += rest;
            return;
        }
        let stalled = self.owed.min(rest);
        (self.owed, rest) = (self.owed - stalled, rest - stalled);
        let waited = Duration::try_from_secs_f64(waited).unwrap_or_default().min(rest);
        self.own.save += stalled;
        self.own.data += waited;
        self.own.useful += rest - waited;
    }

    /// A checkpoint held the steps up for so long.
    pub(super) fn stalled(&mut self, seconds: f64) {
        self.owed += Duration::try_from_secs_f64(seconds).unwrap_or_default();
    }

    pub(super) fn count(&mut self, why: Redone, steps: u64) {
        *self.redone.entry(why).or_insert(0) += steps;
    }

    /// Coordinators before had spent so much when they committed these steps.
    pub(super) fn learn(&mut self, steps: impl IntoIterator<Item = (u64, Spent)>) {
        if self.carried.is_none() {
            self.earlier.extend(steps.into_iter().map(|(step, spent)| (step, Told::from(&spent))));
        }
    }

    /// This coordinator goes on from `committed` steps; what is learnt from now on it knows already.
    pub(super) fn goes_on(&mut self, committed: u64) {
        if self.carried.is_none() {
            let earlier = std::mem::take(&mut self.earlier);
            self.carried = Some(Times::carried(&earlier, committed, self.began));
        }
    }

    /// What the run's time was spent on. `None`: it was led before, and is not known yet with which step it
    /// goes on; what is wasted of the time before depends on that.
    pub(super) fn times(&self) -> Option<Times> {
        let before = self.carried.or_else(|| self.earlier.is_empty().then(Times::default));
        before.map(|before| before.plus(self.own))
    }

    /// The same for a coordinator that will go on from here.
    pub(super) fn told(&self) -> Option<Spent> {
        self.times().map(|times| times.told(self.began.saturating_add(self.until)))
    }

    pub(super) fn redone(&self) -> BTreeMap<&'static str, u64> {
        self.redone.iter().map(|(why, steps)| (why.name(), *steps)).collect()
    }
}
