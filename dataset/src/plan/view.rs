//! Parts that were looked at last, unrolled, so that the next position of a slot is found without a search.

use std::sync::{Mutex, PoisonError};

use blip2_random::KeyedPermutation;

use super::place::{PartId, RowAddress};
use super::sequence::Sequence;
use super::source_order::Segment;

/// Places for parts: two windows of this many slots. More slots than that share them.
const SLOTS_KEPT: u32 = 256;

/// A part: its runs of rows, and the order in which they are used.
#[derive(Debug)]
pub(super) struct PartView {
    part: PartId,
    shuffle: KeyedPermutation,
    segments: Vec<Segment>,
    /// Offset of each segment's first row.
    starts: Vec<u64>,
}

/// The parts in use, a slot's in one window beside its next.
#[derive(Debug)]
pub(super) struct PartViews {
    places: Vec<Mutex<Option<PartView>>>,
}

impl PartViews {
    pub(super) fn new(slots: u32) -> Self {
        let places = 2 * slots.clamp(1, SLOTS_KEPT) as usize;
        Self { places: std::iter::repeat_with(|| Mutex::new(None)).take(places).collect() }
    }

    /// What `look` finds in a part.
    pub(super) fn with<T>(&self, sequence: &Sequence, part: PartId, look: impl FnOnce(&PartView) -> T) -> T {
        let place = (2 * part.slot as usize + (part.window & 1) as usize) % self.places.len();
        let mut kept = self.places[place].lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(view) if view.part == part => look(view),
            _ => look(kept.insert(PartView::new(sequence, part))),
        }
    }
}

impl PartView {
    fn new(sequence: &Sequence, part: PartId) -> Self {
        let segments = sequence.segments(part);
        let mut before = 0;
        let starts = segments.iter().map(|segment| {
            let start = before;
            before += u64::from(segment.rows.end - segment.rows.start);
            start
        });
        Self { part, shuffle: sequence.order_of_part(part), starts: starts.collect(), segments }
    }

    /// The row at a position of the part in the order of use.
    pub(super) fn used(&self, sequence: &Sequence, position: u64) -> RowAddress {
        self.row(sequence, self.shuffle.apply(position))
    }

    /// The row at an offset of the part as it lies.
    pub(super) fn row(&self, sequence: &Sequence, offset: u64) -> RowAddress {
        let index = self.starts.partition_point(|start| *start <= offset) - 1;
        let Segment { group, rows, epoch } = &self.segments[index];
        let id = sequence.group(*group);
        // An offset within the segment, whose rows are counted in 32 bits.
        let row = rows.start + (offset - self.starts[index]) as u32;
        RowAddress { file: id.file, row_group: id.row_group, row, epoch: *epoch }
    }
}
