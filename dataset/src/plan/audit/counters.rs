//! A counter for each row of the corpus.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::plan::sample_plan::Plan;

/// How often the plan uses the rows of the corpus in the audited steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowUses {
    /// Rows of the corpus.
    pub rows: u64,
    /// Samples of the audited steps.
    pub samples: u64,
    /// Epochs that are wholly behind: every row must have been used this often. With several sources, those
    /// of the source that has the fewest behind it.
    pub finished_epochs: u64,
    /// Epochs that have begun: no row may have been used more often. One more than the finished ones in the
    /// middle of an epoch; two more while a window spans the end of one. With several sources, those of the
    /// source that has begun the most.
    pub begun_epochs: u64,
    /// Uses of the row that is used least.
    pub fewest: u64,
    /// Uses of the row that is used most.
    pub most: u64,
    /// Whether every row was used in every finished epoch of its source, and none twice in one.
    pub exact: bool,
}

impl RowUses {
    /// Whether every row was used in every finished epoch of its source, and none twice in one.
    pub fn is_exact(&self) -> bool {
        self.exact && self.finished_epochs <= self.fewest && self.most <= self.begun_epochs
    }
}

/// Uses of every row, in the manifest's order.
pub(super) struct RowCounters {
    uses: Vec<AtomicU32>,
    /// First row of every row group of the plan.
    first_rows: Vec<u64>,
}

impl RowCounters {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut before = 0;
        let first_rows = plan.sequence().group_rows().map(|rows| {
            before += u64::from(rows);
            before - u64::from(rows)
        });
        let first_rows = first_rows.collect();
        let uses = std::iter::repeat_with(AtomicU32::default).take(plan.rows() as usize).collect();
        Self { uses, first_rows }
    }

    /// The counters of some rows of a row group.
    pub(super) fn of(&self, group: u32, rows: Range<u32>) -> &[AtomicU32] {
        let first = self.first_rows[group as usize] as usize;
        &self.uses[first + rows.start as usize..first + rows.end as usize]
    }

    /// What was counted, beside what a plan must give after `positions` samples of each slot.
    pub(super) fn uses(&self, plan: &Plan, positions: u64) -> RowUses {
        let window = u128::from(plan.slots()) * u128::from(plan.part_rows());
        // Within a window the slots' parts are used at the same time: whole windows are behind, the last one
        // may be begun.
        let behind = plan.sequence().source_uses(u128::from(positions / plan.part_rows()) * window);
        let begun = plan.sequence().source_uses(u128::from(positions.div_ceil(plan.part_rows())) * window);
        let mut uses = RowUses {
            rows: plan.rows(),
            samples: positions * u64::from(plan.slots()),
            finished_epochs: u64::MAX,
            begun_epochs: 0,
            fewest: u64::MAX,
            most: 0,
            exact: true,
        };
        for (behind, begun) in behind.into_iter().zip(begun) {
            let rows = u128::from(behind.rows);
            // Samples are counted in 64 bits, so epochs are too.
            let (finished, started) = ((behind.used / rows) as u64, begun.used.div_ceil(rows) as u64);
            let first = self.first_rows[behind.groups.start] as usize;
            let of_source = &self.uses[first..first + behind.rows as usize];
            let counts = || of_source.iter().map(|count| u64::from(count.load(Ordering::Relaxed)));
            let (fewest, most) = (counts().min().unwrap_or_default(), counts().max().unwrap_or_default());
            uses.exact &= finished <= fewest && most <= started;
            uses.finished_epochs = uses.finished_epochs.min(finished);
            uses.begun_epochs = uses.begun_epochs.max(started);
            uses.fewest = uses.fewest.min(fewest);
            uses.most = uses.most.max(most);
        }
        uses
    }
}
