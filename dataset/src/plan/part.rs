//! A part as the runs of consecutive rows it is made of, and the order in which a slot uses them.

use std::ops::Range;

use crate::plan::{PartId, Plan, RowGroupId};
use crate::random::KeyedPermutation;

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

impl Plan {
    /// What a part is made of: of each source that has a share of it, consecutive rows of the source's sequence.
    pub(crate) fn segments(&self, part: PartId) -> Vec<Segment> {
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
    pub(crate) fn group(&self, group: u32) -> RowGroupId {
        self.groups[group as usize].0
    }

    /// Rows of the row groups that have any, in the manifest's order.
    pub(crate) fn group_rows(&self) -> impl Iterator<Item = u32> {
        self.groups.iter().map(|(_, rows)| *rows)
    }

    /// The order of a part: maps a position within it to an offset in the order of the sequence.
    pub(crate) fn order_of_part(&self, part: PartId) -> KeyedPermutation {
        self.shuffle(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::manifest::{Manifest, ManifestFile};
    use crate::plan::PlanKey;

    #[test]
    fn segments_are_the_rows_of_the_part() {
        let file = |name: &str, row_groups: &[u32]| ManifestFile {
            location: name.into(),
            bytes: 1,
            etag: None,
            row_groups: row_groups.to_vec(),
            failed: Vec::new(),
        };
        let files = vec![file("/a", &[10, 0, 7, 3]), file("/b", &[5, 8])];
        let manifest = Manifest::of(files);
        let plan = Plan::new(&manifest, PlanKey { seed: 5, stage: 1 }, 3, 2).unwrap();
        for (window, slot) in (0..9).flat_map(|window| (0..3).map(move |slot| (window, slot))) {
            let part = PartId { window, slot };
            let rows = plan.segments(part).into_iter().flat_map(|segment| {
                let id = plan.group(segment.group);
                segment.rows.map(move |row| (id.file, id.row_group, row, segment.epoch))
            });
            let wanted = (0..plan.part_rows()).map(|offset| plan.row_of_part(part, offset));
            let wanted: Vec<_> = wanted.map(|row| (row.file, row.row_group, row.row, row.epoch)).collect();
            assert_eq!(rows.collect::<Vec<_>>(), wanted);
        }
    }
}
