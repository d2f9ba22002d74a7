//! The sample plan: which row every position of every slot is, computed and never stored.
//!
//! An epoch of a source is its rows with its row groups in the order of a keyed permutation. All its epochs, one after
//! the other, are one endless sequence of rows. The sequences of several sources are merged into one by a schedule
//! that gives each exactly its share (`mixture`); a corpus of one source is that source's sequence. The merged
//! sequence is cut into windows of `slots` equal parts; part `s` of a window feeds slot `s`, in the order of a
//! permutation of its own. So every row is used exactly once in an epoch of its source, epochs join without a short
//! batch, a slot touches few row groups at a time, and any worker can compute any slot at any step.

pub mod audit;
mod candidates;
mod mixture;
mod part;
pub mod quality;
mod source_order;
mod view;

use crate::corpus::manifest::Manifest;
use crate::error::{DatasetError, Result};
use crate::random::KeyedPermutation;

pub(crate) use candidates::SUBSTITUTE_TRIES;
use mixture::Mixture;
use source_order::{Group, SourceOrder};
use view::PartViews;

/// How often a part may use a row: a source that is so small beside its weight would be little but repetition.
const MOST_USES_IN_A_PART: f64 = 1024.0;

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
    /// How often the row's whole source has been used before.
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

/// The use of a source in a part of the sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceUse {
    /// The source's row groups, among those of the corpus that have rows.
    pub(crate) groups: std::ops::Range<usize>,
    /// Rows of the source.
    pub(crate) rows: u64,
    /// How many rows of the sequence are the source's.
    pub(crate) used: u128,
}

/// The sample plan of one stage. Cheap to share: [`Plan::locate`] takes a lock that is the slot's own.
#[derive(Debug)]
pub struct Plan {
    key: PlanKey,
    slots: u32,
    rows: u64,
    part_rows: u64,
    groups: Vec<Group>,
    sources: Vec<SourceOrder>,
    /// None where there is one source.
    mixture: Option<Mixture>,
    views: PartViews,
}

impl Plan {
    /// The plan of a corpus for `slots` slots, each drawing from about `window_row_groups` row groups at a time.
    ///
    /// # Errors
    /// [`DatasetError::Setting`] if there is no row, no slot or no row group in a window, too many row groups, or a
    /// source without rows or too small for its weight.
    pub fn new(manifest: &Manifest, key: PlanKey, slots: u32, window_row_groups: u32) -> Result<Self> {
        let setting = |reason: String| Err(DatasetError::Setting(reason));
        if slots == 0 {
            return setting("train.slots must be at least 1".to_owned());
        }
        if window_row_groups == 0 {
            return setting("data.window_row_groups must be at least 1".to_owned());
        }
        let groups = row_groups(manifest);
        if u32::try_from(groups.len()).is_err() {
            return setting("the corpus has more than 2^32 row groups; write larger ones".to_owned());
        }
        let rows = manifest.rows();
        if rows == 0 {
            return setting("the corpus has no rows".to_owned());
        }
        let window = u128::from(window_row_groups) * u128::from(rows) / groups.len() as u128;
        let share = u128::from((rows / u64::from(slots)).max(1));
        // At most a slot's share of the epoch, which is at most `rows`, so it fits.
        let part_rows = window.clamp(1, share) as u64;
        let (sources, mixture) = sources(manifest, key, &groups, part_rows)?;
        let views = PartViews::new(slots);
        Ok(Self { key, slots, rows, part_rows, groups, sources, mixture, views })
    }

    /// The row at `position` (0, 1, …) of a slot.
    ///
    /// # Panics
    /// If `slot` is not below [`Plan::slots`].
    pub fn locate(&self, slot: u32, position: u64) -> RowAddress {
        let part = self.part(slot, position);
        self.views.with(self, part, |view| view.used(self, position - part.window * self.part_rows))
    }

    /// The part that holds `position` of a slot.
    ///
    /// # Panics
    /// If `slot` is not below [`Plan::slots`].
    pub fn part(&self, slot: u32, position: u64) -> PartId {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        PartId { window: position / self.part_rows, slot }
    }

    /// The row at `offset` (0 … [`Plan::part_rows`]) of a part in the order in which its rows lie.
    ///
    /// # Panics
    /// If `offset` is not below [`Plan::part_rows`].
    pub fn row_of_part(&self, part: PartId, offset: u64) -> RowAddress {
        assert!(offset < self.part_rows, "offset {offset} in a part of {}", self.part_rows);
        self.views.with(self, part, |view| view.row(self, offset))
    }

    /// The row groups a part touches, in the order in which its rows lie.
    pub fn row_groups_of_part(&self, part: PartId) -> Vec<RowGroupId> {
        self.segments(part).iter().map(|segment| self.group(segment.group)).collect()
    }

    /// Rows of the corpus. With one source, the length of an epoch.
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

    /// How the first `rows` rows of the sequence are shared between the sources, in the manifest's order.
    pub(crate) fn source_uses(&self, rows: u128) -> Vec<SourceUse> {
        let used = self.rows_before(rows);
        let use_of = |(source, used): (&SourceOrder, u128)| SourceUse {
            groups: source.groups(),
            rows: source.rows(),
            used,
        };
        self.sources.iter().zip(used).map(use_of).collect()
    }

    /// How many of the first rows of the sequence are of each source.
    fn rows_before(&self, index: u128) -> Vec<u128> {
        self.mixture.as_ref().map_or_else(|| vec![index], |mixture| mixture.rows_before(index))
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
}

/// All row groups that have rows, in the manifest's order.
fn row_groups(manifest: &Manifest) -> Vec<Group> {
    let mut groups = Vec::new();
    for (file, entry) in (0u32..).zip(&manifest.files) {
        let with_rows = (0u32..).zip(&entry.row_groups).filter(|(_, rows)| **rows > 0);
        groups.extend(with_rows.map(|(row_group, rows)| (RowGroupId { file, row_group }, *rows)));
    }
    groups
}

/// The orders of the manifest's sources, and the schedule of several.
fn sources(
    manifest: &Manifest,
    key: PlanKey,
    groups: &[Group],
    part_rows: u64,
) -> Result<(Vec<SourceOrder>, Option<Mixture>)> {
    if manifest.sources.len() < 2 {
        return Ok((vec![SourceOrder::new(key, None, 0, groups)], None));
    }
    let mut orders = Vec::new();
    let mut weights = Vec::new();
    let (mut first_file, mut first_group) = (0usize, 0usize);
    for (number, source) in (0u64..).zip(&manifest.sources) {
        first_file += source.files as usize;
        let end = groups.partition_point(|(id, _)| (id.file as usize) < first_file);
        let own = &groups[first_group..end];
        if own.is_empty() {
            return Err(DatasetError::Setting(format!(
                "the source `{}` has no rows; leave it out of data.sources",
                source.name
            )));
        }
        // The number of row groups fits in 32 bits: checked by `Plan::new`.
        let order = SourceOrder::new(key, Some(number), first_group as u32, own);
        weights.push(source.weight_of(order.rows())?);
        orders.push(order);
        first_group = end;
    }
    if first_file != manifest.files.len() {
        return Err(DatasetError::Setting(format!(
            "the manifest's sources have {first_file} files, the manifest has {}",
            manifest.files.len()
        )));
    }
    let total: f64 = weights.iter().sum();
    for (order, (source, weight)) in orders.iter().zip(manifest.sources.iter().zip(&weights)) {
        let uses = weight / total * part_rows as f64 / order.rows() as f64;
        if !total.is_finite() || uses > MOST_USES_IN_A_PART {
            return Err(DatasetError::Setting(format!(
                "the source `{}` has only {} rows and would be used {uses:.0} times in a row with its weight of \
                 {weight}; lower data.sources.{}.weight",
                source.name,
                order.rows(),
                source.name
            )));
        }
    }
    // About a row group; no longer than the smallest source, so that a block is of one epoch or two.
    let mean = groups.iter().map(|(_, rows)| u64::from(*rows)).sum::<u64>() / groups.len() as u64;
    let smallest = orders.iter().map(SourceOrder::rows).min().unwrap_or(1);
    let mixture = Mixture::new(&weights, mean.clamp(1, smallest), key.seed, key.stage);
    Ok((orders, Some(mixture)))
}

#[cfg(test)]
mod bijection;

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
