//! The plan of a stage, as a loader asks it.

use super::place::{PartId, PlanKey, RowAddress, RowGroupId};
use super::sequence::Sequence;
use super::view::PartViews;
use crate::corpus::manifest::Manifest;
use crate::error::Result;

/// The sample plan of one stage. Cheap to share: [`Plan::locate`] takes a lock that is the slot's own.
#[derive(Debug)]
pub struct Plan {
    sequence: Sequence,
    views: PartViews,
}

impl Plan {
    /// The plan of a corpus for `slots` slots, each drawing from about `window_row_groups` row groups at a
    /// time.
    ///
    /// # Errors
    /// [`DatasetError::Setting`](crate::error::DatasetError::Setting) if there is no row, no slot or no row
    /// group in a window, too many row groups, or a source without rows or too small for its weight.
    pub fn new(manifest: &Manifest, key: PlanKey, slots: u32, window_row_groups: u32) -> Result<Self> {
        let sequence = Sequence::new(manifest, key, slots, window_row_groups)?;
        Ok(Self { sequence, views: PartViews::new(slots) })
    }

    /// The row at `position` (0, 1, …) of a slot.
    ///
    /// # Panics
    /// If `slot` is not below [`Plan::slots`].
    pub fn locate(&self, slot: u32, position: u64) -> RowAddress {
        let part = self.part(slot, position);
        self.views.with(&self.sequence, part, |view| {
            view.used(&self.sequence, position - part.window * self.sequence.part_rows)
        })
    }

    /// The part that holds `position` of a slot.
    ///
    /// # Panics
    /// If `slot` is not below [`Plan::slots`].
    pub fn part(&self, slot: u32, position: u64) -> PartId {
        assert!(slot < self.sequence.slots, "slot {slot} of {}", self.sequence.slots);
        PartId { window: position / self.sequence.part_rows, slot }
    }

    /// The row at `offset` (0 … [`Plan::part_rows`]) of a part in the order in which its rows lie.
    ///
    /// # Panics
    /// If `offset` is not below [`Plan::part_rows`].
    pub fn row_of_part(&self, part: PartId, offset: u64) -> RowAddress {
        assert!(offset < self.sequence.part_rows, "offset {offset} in a part of {}", self.sequence.part_rows);
        self.views.with(&self.sequence, part, |view| view.row(&self.sequence, offset))
    }

    /// The row groups a part touches, in the order in which its rows lie.
    pub fn row_groups_of_part(&self, part: PartId) -> Vec<RowGroupId> {
        self.sequence.segments(part).iter().map(|segment| self.sequence.group(segment.group)).collect()
    }

    /// Rows of the corpus. With one source, the length of an epoch.
    pub fn rows(&self) -> u64 {
        self.sequence.rows
    }

    /// Rows of a part.
    pub fn part_rows(&self) -> u64 {
        self.sequence.part_rows
    }

    /// Slots.
    pub fn slots(&self) -> u32 {
        self.sequence.slots
    }

    /// What the order depends on.
    pub fn key(&self) -> PlanKey {
        self.sequence.key
    }

    /// What is computed.
    pub(super) fn sequence(&self) -> &Sequence {
        &self.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::manifest::ManifestFile;

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
            let rows = plan.sequence.segments(part).into_iter().flat_map(|segment| {
                let id = plan.sequence.group(segment.group);
                segment.rows.map(move |row| (id.file, id.row_group, row, segment.epoch))
            });
            let wanted = (0..plan.part_rows()).map(|offset| plan.row_of_part(part, offset));
            let wanted: Vec<_> = wanted.map(|row| (row.file, row.row_group, row.row, row.epoch)).collect();
            assert_eq!(rows.collect::<Vec<_>>(), wanted);
        }
    }
}
