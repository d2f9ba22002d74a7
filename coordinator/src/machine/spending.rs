//! Where the time of a lead goes, and which steps were done again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::phase::Phase;

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

/// What the time since the lead began was spent on; the parts add up to it.
#[derive(Debug, Default)]
pub(super) struct Spending {
    /// All before is spent.
    until: Duration,
    /// Of the attempt at hand.
    attempt: Duration,
    /// Why that came to nothing, once it has.
    ended: Option<Redone>,
    /// Stalls for checkpoints that belong to the next committed attempts.
    owed: Duration,
    useful: Duration,
    start_up: Duration,
    data: Duration,
    save: Duration,
    restore: Duration,
    wasted: Duration,
    redone: BTreeMap<Redone, u64>,
}

impl Spending {
    /// The time up to `now` was spent in `phase`; whether any step was begun before.
    pub(super) fn pass(&mut self, now: Duration, phase: &Phase, has_begun: bool) {
        let passed = now.saturating_sub(std::mem::replace(&mut self.until, now));
        let is_attempt = matches!(phase, Phase::Stepping { .. } | Phase::Settling { .. });
        if !is_attempt && !self.attempt.is_zero() {
            self.wasted += std::mem::take(&mut self.attempt);
            if !matches!(phase, Phase::Ended(_)) {
                self.count(self.ended.unwrap_or(Redone::Failed), 1);
            }
            self.ended = None;
        }
        match phase {
            Phase::Stepping { .. } | Phase::Settling { .. } => self.attempt += passed,
            Phase::Gathering(_) | Phase::Electing(_) if has_begun => self.restore += passed,
            Phase::Gathering(_) | Phase::Electing(_) => self.start_up += passed,
            Phase::Saving { .. } => self.save += passed,
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
            self.wasted += rest;
            return;
        }
        let stalled = self.owed.min(rest);
        (self.owed, rest) = (self.owed - stalled, rest - stalled);
        let waited = Duration::try_from_secs_f64(waited).unwrap_or_default().min(rest);
        self.save += stalled;
        self.data += waited;
        self.useful += rest - waited;
    }

    /// A checkpoint held the steps up for so long.
    pub(super) fn stalled(&mut self, seconds: f64) {
        self.owed += Duration::try_from_secs_f64(seconds).unwrap_or_default();
    }

    pub(super) fn count(&mut self, why: Redone, steps: u64) {
        *self.redone.entry(why).or_insert(0) += steps;
    }

    pub(super) fn useful(&self) -> Duration {
        self.useful
    }

    /// What was not useful, by cause.
    pub(super) fn not_useful(&self) -> [(&'static str, Duration); 5] {
        [
            ("start_up", self.start_up),
            ("data", self.data),
            ("save", self.save),
            ("restore", self.restore),
            ("wasted", self.wasted),
        ]
    }

    pub(super) fn redone(&self) -> BTreeMap<&'static str, u64> {
        self.redone.iter().map(|(why, steps)| (why.name(), *steps)).collect()
    }
}
