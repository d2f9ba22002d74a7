//! Softmax over rows of scores, scaled and masked, and its gradient.

use rayon::prelude::*;

use crate::fused::kernels::exponential::exp;
use crate::fused::kernels::lanes::{largest, sum, sum_pairs};
use crate::fused::kernels::task_rows;

/// Which row of a mask is added to a row of the scores `[batch, heads, queries, keys]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaskRows {
    pub(super) heads: usize,
    pub(super) queries: usize,
    /// Rows of the mask from one batch entry, head and query to the next; 0 where all share a row.
    pub(super) strides: [usize; 3],
}

impl MaskRows {
    /// The row of the mask for a row of the scores.
    #[inline(always)]
    pub(super) fn of(&self, row: usize) -> usize {
        let (outer, query) = (row / self.queries, row % self.queries);
        let (batch, head) = (outer / self.heads, outer % self.heads);
        batch * self.strides[0] + head * self.strides[1] + query * self.strides[2]
    }
}

/// Makes each row of `width` scores `softmax(scale · scores + mask)`.
pub(super) fn in_place(scores: &mut [f32], width: usize, mask: Option<(&[f32], MaskRows)>, scale: f32) {
    let arch = pulp::Arch::new();
    let rows = task_rows(width);
    scores.par_chunks_mut(rows * width).enumerate().for_each(|(task, scores)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for (index, scores) in scores.chunks_exact_mut(width).enumerate() {
                    match mask {
                        Some((mask, rows_of_mask)) => {
                            let start = rows_of_mask.of(task * rows + index) * width;
                            let mask = &mask[start..start + width];
                            scores
                                .iter_mut()
                                .zip(mask)
                                .for_each(|(score, mask)| *score = scale * *score + mask);
                        }
                        None => scores.iter_mut().for_each(|score| *score *= scale),
                    }
                    normalise(scores);
                }
            },
        );
    });
}

/// Makes a row of scores probabilities.
#[inline(always)]
pub(super) fn normalise(row: &mut [f32]) {
    let shift = largest(row);
    row.iter_mut().for_each(|value| *value = exp(*value - shift));
    let factor = 1.0 / sum(row, |value| value);
    row.iter_mut().for_each(|value| *value *= factor);
}

/// Makes the gradient `g` of each row of probabilities `p` that of the scores, `scale · p · (g - Σ g p)`.
pub(super) fn backward_in_place(gradient: &mut [f32], probabilities: &[f32], width: usize, scale: f32) {
    let arch = pulp::Arch::new();
    let chunk = task_rows(width) * width;
    gradient.par_chunks_mut(chunk).zip(probabilities.par_chunks(chunk)).for_each(
        |(gradient, probabilities)| {
            arch.dispatch(
                #[inline(always)]
                || {
                    for (gradient, p) in
                        gradient.chunks_exact_mut(width).zip(probabilities.chunks_exact(width))
                    {
                        let shared = sum_pairs(p, gradient, |p, g| p * g);
                        gradient.iter_mut().zip(p).for_each(|(g, p)| *g = scale * p * (*g - shared));
                    }
                },
            );
        },
    );
}
