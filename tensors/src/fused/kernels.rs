//! What the loops of several operations share: all go over slices of float32, compiled for the processor's
//! widest vectors.
//!
//! No loop uses fused multiply-add or another order of its sums on a wider processor, so that all compute the
//! same bits.

pub(super) mod bf16;
pub(super) mod exponential;
pub(super) mod few_rows;
pub(super) mod lanes;
pub(super) mod rows;
pub(super) mod sixteen;

/// Elements that one task computes, about.
pub(super) const TASK: usize = 1 << 14;

/// Rows whose share of a sum over all rows is added up first, whatever the number of threads.
pub(super) const PARTIAL_ROWS: usize = 64;

/// Rows of `width` elements that one task computes.
pub(super) fn task_rows(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}
