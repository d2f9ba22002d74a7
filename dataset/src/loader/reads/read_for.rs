//! What a read is for.

use crate::plan::RowGroupId;

/// The row group that a read is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadFor {
    pub(crate) row_group: RowGroupId,
    /// The window of the plan that needs it.
    pub(crate) window: u64,
}
