//! The merged, endless sequence of rows, and the parts into which it is cut: what a plan computes, without
//! memory.

use std::ops::Range;

use blip2_random::KeyedPermutation;

use super::mixture::Mixture;
use super::place::{PartId, PlanKey, RowGroupId};
use super::source_order::{Group, Segment, SourceOrder};
use crate::corpus::manifest::Manifest;
use crate::error::{DatasetError, Result};

/// How often a part may use a row: a source that is so small beside its weight would be little but
/// repetition.
const MOST_USES_IN_A_PART: f64 = 1024.0;

/// The use of a source in a part of the sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceUse {
    /// The source's row groups, among those of the corpus that have rows.
    pub(super) groups: Range<usize>,
    /// Rows of the source.
    pub(super) rows: u64,
    /// How many rows of the sequence are the source's.
    pub(super) used: u128,
}

/// The sequence of one stage.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) key: PlanKey,
    pub(super) slots: u32,
    /// Of the corpus.
    pub(super) rows: u64,
    /// Of a part.
    pub(super) part_rows: u64,
    /// Row groups that have rows, in the manifest's order.
    pub(super) groups: Vec<Group>,
    sources: Vec<SourceOrder>,
    /// None where there is one source.
    mixture: Option<Mixture>,
}

impl Sequence {
    /// As [`Plan::new`](super::Plan::new).
    pub(super) fn new(manifest: &Manifest, key: PlanKey, slots: u32, window_row_groups: u32) -> Result<Self> {
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
        Ok(Self { key, slots, rows, part_rows, groups, sources, mixture })
    }

    /// What a part is made of: of each source that has a share of it, consecutive rows of the source's
    /// sequence.
    pub(super) fn segments(&self, part: PartId) -> Vec<Segment> {
        let first = self.first_row(part);
        let starts = self.rows_before(first);
        let ends = self.rows_before(first + u128::from(self.part_rows));
        let mut found = Vec::new();
        for (source, (start, end)) in self.sources.iter().zip(starts.into_iter().zip(ends)) {
            source.segments(&self.groups, start, end, &mut found);
        }
        found
    }

    /// Where a row group of a segment is.
    pub(super) fn group(&self, group: u32) -> RowGroupId {
        self.groups[group as usize].0
    }

    /// Rows of the row groups that have any, in the manifest's order.
    pub(super) fn group_rows(&self) -> impl Iterator<Item = u32> {
        self.groups.iter().map(|(_, rows)| *rows)
    }

    /// How the first `rows` rows of the sequence are shared between the sources, in the manifest's order.
    pub(super) fn source_uses(&self, rows: u128) -> Vec<SourceUse> {
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

    /// The order of a part: maps a position within it to an offset in the order of the sequence.
    pub(super) fn order_of_part(&self, part: PartId) -> KeyedPermutation {
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
