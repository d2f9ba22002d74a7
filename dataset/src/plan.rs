//! The sample plan: which row every position of every slot is, computed and never stored.
//!
//! An epoch is the corpus with its row groups in the order of a keyed permutation. All epochs, one after the other,
//! are one endless sequence of rows. It is cut into windows of `slots` equal parts; part `s` of a window feeds slot
//! `s`, in the order of a permutation of its own. So every row is used exactly once an epoch, epochs join without a
//! short batch, a slot touches few row groups at a time, and any worker can compute any slot at any step.

mod candidates;
mod part;

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{DatasetError, Result};
use crate::manifest::Manifest;
use crate::random::KeyedPermutation;

pub(crate) use candidates::SUBSTITUTE_TRIES;

/// Epoch orders kept: a window may span the end of one, and prefetch runs ahead.
const EPOCHS_KEPT: usize = 4;

/// What the order of rows depends on, besides the manifest and the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanKey {
    /// Seed of the run.
    pub seed: u64,
    /// Training stage.
    pub stage: u32,
}

/// A row of the corpus, and the epoch in which it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowAddress {
    /// Index into [`Manifest::files`].
    pub file: u32,
    /// Row group within the file.
    pub row_group: u32,
    /// Row within the row group.
    pub row: u32,
    /// How often the whole corpus has been used before.
    pub epoch: u64,
}

impl RowAddress {
    /// The row without the epoch: file, row group, row.
    pub fn row_id(&self) -> (u32, u32, u32) {
        (self.file, self.row_group, self.row)
    }
}

/// A slot's share of a window: a run of consecutive rows of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId {
    /// Window.
    pub window: u64,
    /// Slot.
    pub slot: u32,
}

/// A row group of the corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowGroupId {
    /// Index into [`Manifest::files`].
    pub file: u32,
    /// Row group within the file.
    pub row_group: u32,
}

/// The order of the row groups in one epoch.
#[derive(Debug)]
struct EpochOrder {
    epoch: u64,
    /// Index into `Plan::groups`, in order of use.
    order: Vec<u32>,
    /// Rows before each of `order`, ascending.
    starts: Vec<u64>,
}

/// The sample plan of one stage. Cheap to share: `locate` takes a short lock on the epochs in use.
#[derive(Debug)]
pub struct Plan {
    key: PlanKey,
    slots: u32,
    rows: u64,
    part_rows: u64,
    groups: Vec<(RowGroupId, u32)>,
    /// Least recently used first.
    epochs: Mutex<Vec<Arc<EpochOrder>>>,
}

impl Plan {
    /// The plan of a corpus for `slots` slots, each drawing from about `window_row_groups` row groups at a time.
    ///
    /// # Errors
    /// [`DatasetError::Setting`] if there is no row, no slot or no row group in a window, or too many row groups.
    pub fn new(manifest: &Manifest, key: PlanKey, slots: u32, window_row_groups: u32) -> Result<Self> {
        let setting = |reason: &str| Err(DatasetError::Setting(reason.to_owned()));
        if slots == 0 {
            return setting("train.slots must be at least 1");
        }
        if window_row_groups == 0 {
            return setting("data.window_row_groups must be at least 1");
        }
        let groups = row_groups(manifest);
        if u32::try_from(groups.len()).is_err() {
            return setting("the corpus has more than 2^32 row groups; write larger ones");
        }
        let rows = manifest.rows();
        if rows == 0 {
            return setting("the corpus has no rows");
        }
        let window = u128::from(window_row_groups) * u128::from(rows) / groups.len() as u128;
        let share = u128::from((rows / u64::from(slots)).max(1));
        // At most a slot's share of the epoch, which is at most `rows`, so it fits.
        let part_rows = window.clamp(1, share) as u64;
        Ok(Self { key, slots, rows, part_rows, groups, epochs: Mutex::new(Vec::new()) })
    }

    /// The row at `position` (0, 1, …) of a slot.
    ///
    /// # Panics
    /// If `slot` is not below [`Plan::slots`].
    pub fn locate(&self, slot: u32, position: u64) -> RowAddress {
        let part = self.part(slot, position);
        let offset = self.shuffle(part).apply(position % self.part_rows);
        self.row(self.first_row(part) + u128::from(offset))
    }

    /// The part that holds `position` of a slot.
    ///
    /// # Panics
    /// If `slot` is not below [`Plan::slots`].
    pub fn part(&self, slot: u32, position: u64) -> PartId {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        PartId { window: position / self.part_rows, slot }
    }

    /// The row at `offset` (0 … [`Plan::part_rows`]) of a part in the order of the sequence.
    pub fn row_of_part(&self, part: PartId, offset: u64) -> RowAddress {
        self.row(self.first_row(part) + u128::from(offset))
    }

    /// The row groups a part touches, in the order of the sequence.
    pub fn row_groups_of_part(&self, part: PartId) -> Vec<RowGroupId> {
        self.segments(part).iter().map(|segment| self.group(segment.group)).collect()
    }

    /// Rows of the corpus, which is the length of an epoch.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows of a part.
    pub fn part_rows(&self) -> u64 {
        self.part_rows
    }

    /// Slots.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// What the order depends on.
    pub fn key(&self) -> PlanKey {
        self.key
    }

    /// Index in the endless sequence of a part's first row.
    fn first_row(&self, part: PartId) -> u128 {
        (u128::from(part.window) * u128::from(self.slots) + u128::from(part.slot))
            * u128::from(self.part_rows)
    }

    fn shuffle(&self, part: PartId) -> KeyedPermutation {
        let parts = [u64::from(self.key.stage), part.window, u64::from(part.slot)];
        KeyedPermutation::keyed(self.key.seed, "part order", &parts, self.part_rows)
    }

    fn row(&self, index: u128) -> RowAddress {
        let (order, position, row) = self.find(index);
        let (group, _) = self.groups[order.order[position] as usize];
        RowAddress { file: group.file, row_group: group.row_group, row, epoch: order.epoch }
    }

    /// Epoch, position of the row group in its order, and row within the row group.
    fn find(&self, index: u128) -> (Arc<EpochOrder>, usize, u32) {
        let rows = u128::from(self.rows);
        // Epoch numbers stay far below 2^64: positions are 64-bit and a window holds at most one epoch.
        let order = self.epoch((index / rows) as u64);
        let within = (index % rows) as u64;
        let position = order.starts.partition_point(|start| *start <= within) - 1;
        // A row index within a row group, whose length is 32-bit.
        let row = (within - order.starts[position]) as u32;
        (order, position, row)
    }

    fn epoch(&self, epoch: u64) -> Arc<EpochOrder> {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = epochs.iter().position(|order| order.epoch == epoch) {
            let last = epochs.len() - 1;
            epochs[index..=last].rotate_left(1);
            return Arc::clone(&epochs[last]);
        }
        if epochs.len() == EPOCHS_KEPT {
            epochs.remove(0);
        }
        let order = Arc::new(self.order_of(epoch));
        epochs.push(Arc::clone(&order));
        order
    }

    fn order_of(&self, epoch: u64) -> EpochOrder {
        let parts = [u64::from(self.key.stage), epoch];
        let shuffle = KeyedPermutation::keyed(self.key.seed, "epoch order", &parts, self.groups.len() as u64);
        // The number of row groups fits in 32 bits: checked by `new`.
        let order: Vec<u32> = (0..self.groups.len() as u64).map(|i| shuffle.apply(i) as u32).collect();
        let mut before = 0;
        let starts = order.iter().map(|group| {
            let start = before;
            before += u64::from(self.groups[*group as usize].1);
            start
        });
        EpochOrder { epoch, starts: starts.collect(), order }
    }
}

/// All row groups that have rows, in the manifest's order.
fn row_groups(manifest: &Manifest) -> Vec<(RowGroupId, u32)> {
    let mut groups = Vec::new();
    for (file, entry) in (0u32..).zip(&manifest.files) {
        let with_rows = (0u32..).zip(&entry.row_groups).filter(|(_, rows)| **rows > 0);
        groups.extend(with_rows.map(|(row_group, rows)| (RowGroupId { file, row_group }, *rows)));
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::test_corpus::manifest;

    fn plan(files: &[&[u32]], slots: u32, window: u32) -> Plan {
        Plan::new(&manifest(files), PlanKey { seed: 5, stage: 1 }, slots, window).unwrap()
    }

    /// How often each row is used in each complete epoch, over enough positions of all slots.
    fn uses(plan: &Plan, epochs: u64) -> BTreeMap<(u64, u32, u32, u32), u32> {
        let windows = (epochs * plan.rows()).div_ceil(u64::from(plan.slots()) * plan.part_rows());
        let mut uses = BTreeMap::new();
        for slot in 0..plan.slots() {
            for position in 0..windows * plan.part_rows() {
                let row = plan.locate(slot, position);
                if row.epoch < epochs {
                    *uses.entry((row.epoch, row.file, row.row_group, row.row)).or_insert(0) += 1;
                }
            }
        }
        uses
    }

    #[test]
    fn every_row_once_an_epoch() {
        for (files, slots, window) in [
            (&[&[10u32, 7, 3][..], &[5, 0, 8][..]][..], 4, 2),
            (&[&[1][..]][..], 8, 4),
            (&[&[256; 20][..]][..], 16, 1),
            (&[&[3, 1, 4, 1, 5, 9, 2, 6][..]][..], 1, 3),
            (&[&[97, 31][..]][..], 5, 100),
        ] {
            let plan = plan(files, slots, window);
            let uses = uses(&plan, 3);
            assert_eq!(uses.len() as u64, 3 * plan.rows(), "{files:?} {slots} {window}");
            assert!(uses.values().all(|count| *count == 1), "{files:?} {slots} {window}");
        }
    }

    #[test]
    fn any_order_of_access_gives_the_same_rows() {
        let files: &[&[u32]] = &[&[16; 9], &[5; 11]];
        let (forward, backward) = (plan(files, 4, 2), plan(files, 4, 2));
        let positions: Vec<(u32, u64)> =
            (0..4).flat_map(|slot| (0..400).map(move |position| (slot, position))).collect();
        let a: Vec<_> = positions.iter().map(|(slot, position)| forward.locate(*slot, *position)).collect();
        let mut b: Vec<_> =
            positions.iter().rev().map(|(slot, position)| backward.locate(*slot, *position)).collect();
        b.reverse();
        assert_eq!(a, b);
        assert!(a.iter().any(|row| row.epoch > 4));
    }

    #[test]
    fn a_part_touches_few_row_groups() {
        let plan = plan(&[&[64; 400]], 8, 3);
        assert_eq!(plan.part_rows(), 192);
        for slot in 0..8 {
            for window in 0..20 {
                let positions = window * plan.part_rows()..(window + 1) * plan.part_rows();
                let rows: Vec<_> = positions.map(|position| plan.locate(slot, position)).collect();
                let touched: BTreeSet<_> =
                    rows.iter().map(|row| RowGroupId { file: row.file, row_group: row.row_group }).collect();
                assert!(touched.len() <= 5, "{}", touched.len());
                let listed: BTreeSet<_> =
                    plan.row_groups_of_part(PartId { window, slot }).into_iter().collect();
                assert_eq!(touched, listed);
            }
        }
    }

    #[test]
    fn parts_hold_the_rows_that_positions_find() {
        let plan = plan(&[&[10, 7, 3], &[5, 8]], 3, 2);
        let (slot, window) = (1, 5);
        let part = plan.part(slot, window * plan.part_rows());
        let by_offset: BTreeSet<_> =
            (0..plan.part_rows()).map(|offset| plan.row_of_part(part, offset)).collect();
        let by_position: BTreeSet<_> =
            (0..plan.part_rows()).map(|j| plan.locate(slot, window * plan.part_rows() + j)).collect();
        assert_eq!(by_offset, by_position);
    }

    #[test]
    fn the_order_depends_on_seed_stage_epoch_and_slot() {
        let manifest = manifest(&[&[32; 64]]);
        let rows = |seed, stage, slot, first: u64| -> Vec<_> {
            let plan = Plan::new(&manifest, PlanKey { seed, stage }, 4, 4).unwrap();
            (first..first + 64)
                .map(|position| plan.locate(slot, position))
                .map(|row| (row.row_group, row.row))
                .collect()
        };
        let base = rows(1, 1, 0, 0);
        assert_eq!(base, rows(1, 1, 0, 0));
        for other in [rows(2, 1, 0, 0), rows(1, 2, 0, 0), rows(1, 1, 1, 0), rows(1, 1, 0, 512)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn impossible_settings_are_refused() {
        let key = PlanKey { seed: 1, stage: 1 };
        for (files, slots, window) in
            [(&[&[4u32][..]][..], 0, 1), (&[&[4][..]][..], 1, 0), (&[&[0][..]][..], 1, 1), (&[][..], 1, 1)]
        {
            assert!(matches!(Plan::new(&manifest(files), key, slots, window), Err(DatasetError::Setting(_))));
        }
    }

    #[test]
    fn plans_are_shared_between_threads() {
        fn shareable<T: Send + Sync>() {}
        shareable::<Plan>();
    }
}
