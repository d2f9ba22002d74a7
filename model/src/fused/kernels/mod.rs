//! Loops over slices of float32, compiled for the processor's widest vectors.
//!
//! No loop uses fused multiply-add or another order of its sums on a wider processor, so that all compute the same bits.

pub(super) mod exponential;
pub(super) mod gelu;
mod lanes;
pub(super) mod layer_norm;
pub(super) mod softmax;

/// Elements that one task computes, about.
const TASK: usize = 1 << 14;

/// Rows of `width` elements that one task computes.
fn task_rows(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}
