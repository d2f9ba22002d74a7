//! Loops over slices of float32, compiled for the processor's widest vectors.
//!
//! No loop uses fused multiply-add or another order of its sums on a wider processor, so that all compute the same bits.

pub(super) mod bf16;
pub(super) mod cross_entropy;
pub(super) mod dropout;
pub(super) mod exponential;
pub(super) mod gelu;
mod lanes;
pub(super) mod layer_norm;
pub(super) mod rows;
pub(super) mod softmax;

/// Elements that one task computes, about.
const TASK: usize = 1 << 14;

/// Rows whose share of a sum over all rows is added up first, whatever the number of threads.
const PARTIAL_ROWS: usize = 64;

/// Rows of `width` elements that one task computes.
fn task_rows(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}
