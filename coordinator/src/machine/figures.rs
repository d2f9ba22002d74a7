//! What a lead comes to in numbers, for those who watch it.

use std::collections::BTreeMap;
use std::time::Duration;

use blip2_dataset::quarantine::QuarantineRecord;

use super::state::Machine;

/// Rows that are shown.
const MOST_LEFT_OUT: usize = 6;

/// What a coordinator has counted since it began to lead; times are those of all coordinators of the run.
/// Nothing is decided on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Time in steps that were committed, without waits and stalls. `None`: the run was led before, and it is
    /// not known yet with which step it goes on.
    pub useful: Option<Duration>,
    /// All other time by cause; with `useful` it adds up to the time since the run was first led, but for the
    /// attempt at hand. Empty as long as that is not known.
    pub not_useful: Vec<(&'static str, Duration)>,
    /// Steps that were done again, by reason.
    pub redone: BTreeMap<&'static str, u64>,
    /// Workers by what they do.
    pub members: Vec<(&'static str, usize)>,
    /// Workers to go on with, and to begin with.
    pub wanted: [(&'static str, u32); 2],
    /// Rows that committed steps could not use, by reason.
    pub quarantined: BTreeMap<&'static str, u64>,
    /// The rows that the latest samples could not use, a few, newest first.
    pub left_out: Vec<QuarantineRecord>,
    /// Since the newest commit, or else since the lead began.
    pub since_commit: Duration,
    /// Since the newest checkpoint was complete, or else since the lead began.
    pub since_checkpoint: Duration,
}

impl Machine {
    /// The lead in numbers.
    pub fn figures(&self) -> Figures {
        let count = |state: &str| self.members.keys().filter(|id| self.doing(**id) == state).count();
        let times = self.spending.times();
        let states = ["computing", "waiting", "preparing", "leaving"];
        Figures {
            useful: times.map(|times| times.useful),
            not_useful: times.map_or_else(Vec::new, |times| times.not_useful().into()),
            redone: self.spending.redone(),
            members: states.into_iter().map(|state| (state, count(state))).collect(),
            wanted: [("min", self.settings.min_workers), ("start", self.settings.workers)],
            quarantined: self.counted.quarantined().clone(),
            left_out: self.quarantine.newest(MOST_LEFT_OUT).cloned().collect(),
            since_commit: self.now.saturating_sub(self.progress.last_commit),
            since_checkpoint: self.now.saturating_sub(self.counted.checkpoint()),
        }
    }

    fn doing(&self, id: u32) -> &'static str {
        match self.members.get(&id) {
            Some(member) if member.is_leaving => "leaving",
            Some(member) if !member.is_ready => "preparing",
            _ if self.is_in_world(id) => "computing",
            _ => "waiting",
        }
    }
}
