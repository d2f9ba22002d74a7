//! A counter for each row of the corpus.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::plan::Plan;

/// How often the plan uses the rows of the corpus in the audited steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowUses {
    /// Rows of the corpus.
    pub rows: u64,
    /// Samples of the audited steps.
    pub samples: u64,
    /// Epochs that are wholly behind: every row must have been used this often.
    pub finished_epochs: u64,
    /// Epochs that have begun: no row may have been used more often. One more than the finished ones in the middle of
    /// an epoch; two more while a window spans the end of one.
    pub begun_epochs: u64,
    /// Uses of the row that is used least.
    pub fewest: u64,
    /// Uses of the row that is used most.
    pub most: u64,
}

impl RowUses {
    /// Whether every row was used in every finished epoch, and none twice in one.
    pub fn is_exact(&self) -> bool {
        self.finished_epochs <= self.fewest && self.most <= self.begun_epochs
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
        let first_rows = plan.group_rows().map(|rows| {
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
        let rows = u128::from(plan.rows());
        // Within a window the slots' parts are used at the same time: whole windows are behind, the last one may be begun.
        let behind = u128::from(positions / plan.part_rows()) * window;
        let begun = u128::from(positions.div_ceil(plan.part_rows())) * window;
        let counts = || self.uses.iter().map(|count| u64::from(count.load(Ordering::Relaxed)));
        RowUses {
            rows: plan.rows(),
            samples: positions * u64::from(plan.slots()),
            // Samples are counted in 64 bits, so epochs are too.
            finished_epochs: (behind / rows) as u64,
            begun_epochs: begun.div_ceil(rows) as u64,
            fewest: counts().min().unwrap_or_default(),
            most: counts().max().unwrap_or_default(),
        }
    }
}
