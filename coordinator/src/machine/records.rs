//! Committed steps as they are recorded, until somebody keeps the records for good.
//!
//! The members know the records too, so that a coordinator that takes over has those which the one before
//! had not handed on yet: of every committed step there is one record, whoever led.

use std::collections::BTreeMap;

use blip2_proto::bounds::MAX_RECORDS;
use blip2_proto::v1::CommittedStep;

/// Records that wait at most; of more the oldest go: where nobody can keep them, a run goes on without.
const MOST_WAITING: usize = MAX_RECORDS;

/// Records that nobody keeps yet.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Those of earlier steps are kept for good.
    kept: u64,
    waiting: BTreeMap<u64, CommittedStep>,
    /// Those of earlier steps were told here.
    told: u64,
}

impl Records {
    /// A step was committed here, and is told.
    pub(super) fn committed(&mut self, step: &CommittedStep) {
        self.told = self.told.max(step.step + 1);
        self.take(step.clone());
    }

    /// A member knows of records from before.
    pub(super) fn learn(&mut self, records: &[CommittedStep]) {
        let kept = self.kept;
        for record in records.iter().filter(|record| record.step >= kept) {
            self.take(record.clone());
        }
    }

    fn take(&mut self, record: CommittedStep) {
        self.waiting.entry(record.step).or_insert(record);
        while self.waiting.len() > MOST_WAITING {
            self.waiting.pop_first();
        }
    }

    /// Those of the first `step` steps are kept for good.
    pub(super) fn keep(&mut self, step: u64) {
        self.kept = self.kept.max(step);
        self.waiting = self.waiting.split_off(&self.kept);
    }

    /// Those of earlier steps are kept for good.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// The record of a step, as long as it waits.
    pub(super) fn of(&self, step: u64) -> Option<CommittedStep> {
        self.waiting.get(&step).cloned()
    }

    /// All that wait, of the first `committed` steps.
    pub(super) fn before(&self, committed: u64) -> Vec<CommittedStep> {
        self.waiting.range(..committed).map(|(_, record)| record.clone()).collect()
    }

    /// Those of the first `committed` steps that were never told here; then they are.
    pub(super) fn untold(&mut self, committed: u64) -> Vec<CommittedStep> {
        let from = self.told.min(committed);
        let untold = self.waiting.range(from..committed).map(|(_, record)| record.clone()).collect();
        self.told = self.told.max(committed);
        untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> CommittedStep {
        CommittedStep { step, seconds: 0.5, loss_rise: Some(2.0), skipped: true, ..CommittedStep::default() }
    }

    fn steps(records: &[CommittedStep]) -> Vec<u64> {
        records.iter().map(|record| record.step).collect()
    }

    #[test]
    fn what_members_know_is_told_once_and_waits_until_it_is_kept() {
        let mut records = Records::default();
        records.learn(&[3, 4, 5, 6].map(record));
        records.learn(&[5, 6].map(record));
        assert_eq!(steps(&records.untold(6)), [3, 4, 5], "step 6 is not committed here");
        assert!(records.untold(6).is_empty());
        records.committed(&record(6));
        records.committed(&record(7));
        assert!(records.untold(8).is_empty());
        assert_eq!(steps(&records.before(8)), [3, 4, 5, 6, 7]);
        records.keep(6);
        assert_eq!((steps(&records.before(8)), records.kept()), (vec![6, 7], 6));
        assert_eq!((records.of(5), records.of(7)), (None, Some(record(7))));
        records.learn(&[4].map(record));
        assert_eq!(steps(&records.before(8)), [6, 7], "kept already");
    }

    #[test]
    fn where_nobody_keeps_them_the_oldest_go() {
        let mut records = Records::default();
        records.learn(&(0..MOST_WAITING as u64 + 3).map(record).collect::<Vec<_>>());
        let waiting = records.before(u64::MAX);
        assert_eq!((waiting.len(), waiting[0].step), (MOST_WAITING, 3));
    }
}
