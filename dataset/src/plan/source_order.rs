//! The order of one source: its row groups permuted anew in each of its epochs, one epoch after the other.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use blip2_random::KeyedPermutation;

use super::place::{PlanKey, RowGroupId};

/// Epoch orders kept: a window may span the end of one, and prefetch runs ahead.
const EPOCHS_KEPT: usize = 4;

/// A row group of the corpus that has rows: where it is, and how many.
pub(super) type Group = (RowGroupId, u32);

/// Consecutive rows of one row group in a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Index of the row group among those that have rows, in the manifest's order.
    pub(crate) group: u32,
    /// The rows within the row group.
    pub(crate) rows: Range<u32>,
    /// The epoch that uses them.
    pub(crate) epoch: u64,
}

/// A source as an endless sequence of rows.
#[derive(Debug)]
pub(super) struct SourceOrder {
    key: PlanKey,
    /// Which source it is; none where there is but one.
    number: Option<u64>,
    /// Index of the source's first row group among those of the corpus.
    first_group: u32,
    groups: u32,
    rows: u64,
    /// Least recently used first.
    epochs: Mutex<Vec<Arc<EpochOrder>>>,
}

/// The order of a source's row groups in one epoch.
#[derive(Debug)]
struct EpochOrder {
    epoch: u64,
    /// Indices of row groups of the corpus, in order of use.
    order: Vec<u32>,
    /// Rows before each of `order`, ascending.
    starts: Vec<u64>,
}

impl SourceOrder {
    /// The source whose row groups are `groups`, of which there is one at least, the first being
    /// `first_group` of the corpus.
    pub(super) fn new(key: PlanKey, number: Option<u64>, first_group: u32, groups: &[Group]) -> Self {
        let rows = groups.iter().map(|(_, rows)| u64::from(*rows)).sum();
        // The number of row groups fits in 32 bits: checked by `Plan::new`.
        let groups = groups.len() as u32;
        Self { key, number, first_group, groups, rows, epochs: Mutex::new(Vec::new()) }
    }

    /// Rows of the source, which is the length of its epoch.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The source's row groups among those of the corpus.
    pub(super) fn groups(&self) -> Range<usize> {
        let first = self.first_group as usize;
        first..first + self.groups as usize
    }

    /// The rows from `start` up to `end` of the source's sequence, as runs of consecutive rows.
    pub(super) fn segments(&self, groups: &[Group], start: u128, end: u128, found: &mut Vec<Segment>) {
        let rows = u128::from(self.rows);
        let mut next = start;
        while next < end {
            // Epoch numbers stay far below 2^64: positions are 64-bit and a part holds few epochs.
            let epoch = self.epoch((next / rows) as u64, groups);
            let mut within = (next % rows) as u64;
            let mut position = epoch.starts.partition_point(|start| *start <= within) - 1;
            while next < end && position < epoch.order.len() {
                let group = epoch.order[position];
                // Rows of a row group are counted in 32 bits.
                let first = (within - epoch.starts[position]) as u32;
                let rows = (end - next).min(u128::from(groups[group as usize].1 - first)) as u32;
                found.push(Segment { group, rows: first..first + rows, epoch: epoch.epoch });
                next += u128::from(rows);
                within += u64::from(rows);
                position += 1;
            }
        }
    }

    fn epoch(&self, epoch: u64, groups: &[Group]) -> Arc<EpochOrder> {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = epochs.iter().position(|order| order.epoch == epoch) {
            epochs[index..].rotate_left(1);
            return Arc::clone(&epochs[epochs.len() - 1]);
        }
        if epochs.len() == EPOCHS_KEPT {
            epochs.remove(0);
        }
        let order = Arc::new(self.order_of(epoch, groups));
        epochs.push(Arc::clone(&order));
        order
    }

    fn order_of(&self, epoch: u64, groups: &[Group]) -> EpochOrder {
        let (seed, stage) = (self.key.seed, u64::from(self.key.stage));
        let len = u64::from(self.groups);
        let shuffle = match self.number {
            None => KeyedPermutation::keyed(seed, "epoch order", &[stage, epoch], len),
            Some(source) => KeyedPermutation::keyed(seed, "source order", &[stage, source, epoch], len),
        };
        // The permutation's length is 32-bit.
        let order: Vec<u32> = (0..len).map(|i| self.first_group + shuffle.apply(i) as u32).collect();
        let mut before = 0;
        let starts = order.iter().map(|group| {
            let start = before;
            before += u64::from(groups[*group as usize].1);
            start
        });
        EpochOrder { epoch, starts: starts.collect(), order }
    }
}
