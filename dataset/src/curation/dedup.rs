//! Rows whose picture is another row's.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::finish::RowPlaces;

/// Rows that are left out: task, row group and row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DuplicateList {
    rows: BTreeSet<(u64, u32, u32)>,
}

impl DuplicateList {
    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Those of a task.
    pub(super) fn of_task(&self, task: u64) -> RowPlaces {
        let range = (Bound::Included((task, 0, 0)), Bound::Excluded((task.saturating_add(1), 0, 0)));
        self.rows.range(range).map(|(_, row_group, row)| (*row_group, *row)).collect()
    }
}
