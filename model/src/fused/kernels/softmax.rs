//! Softmax over rows of scores, scaled and masked, and its gradient.

use rayon::prelude::*;

use super::exponential::exp;
use super::lanes::{largest, sum, sum_pairs};
use super::task_rows;

/// Which row of a mask is added to a row of the scores `[batch, heads, queries, keys]`.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct MaskRows {
    pub(in crate::fused) heads: usize,
    pub(in crate::fused) queries: usize,
    /// Rows of the mask from one batch entry, head and query to the next; 0 where all share a row.
    pub(in crate::fused) strides: [usize; 3],
}

impl MaskRows {
    fn of(&self, row: usize) -> usize {
        let (outer, query) = (row / self.queries, row % self.queries);
        let (batch, head) = (outer / self.heads, outer % self.heads);
        batch * self.strides[0] + head * self.strides[1] + query * self.strides[2]
    }
}

/// `softmax(scale · scores + mask)` of each row of `width` scores.
pub(in crate::fused) fn forward(
    scores: &[f32],
    width: usize,
    mask: Option<(&[f32], MaskRows)>,
    scale: f32,
) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let mut output = vec![0.0; scores.len()];
    let rows = task_rows(width);
    let tasks = output.par_chunks_mut(rows * width).zip(scores.par_chunks(rows * width));
    tasks.enumerate().for_each(|(task, (output, scores))| {
        arch.dispatch(
            #[inline(always)]
            || {
                let pairs = output.chunks_exact_mut(width).zip(scores.chunks_exact(width));
                for (index, (output, scores)) in pairs.enumerate() {
                    match mask {
                        Some((mask, rows_of_mask)) => {
                            let start = rows_of_mask.of(task * rows + index) * width;
                            let mask = &mask[start..start + width];
                            for ((output, score), mask) in output.iter_mut().zip(scores).zip(mask) {
                                *output = scale * score + mask;
                            }
                        }
                        None => {
                            output.iter_mut().zip(scores).for_each(|(output, score)| *output = scale * score)
                        }
                    }
                    normalise(output);
                }
            },
        );
    });
    output
}

#[inline(always)]
fn normalise(row: &mut [f32]) {
    let shift = largest(row);
    row.iter_mut().for_each(|value| *value = exp(*value - shift));
    let factor = 1.0 / sum(row, |value| value);
    row.iter_mut().for_each(|value| *value *= factor);
}

/// `scale · p · (g - Σ g p)` of each row of probabilities `p` and their gradient `g`.
pub(in crate::fused) fn backward(output: &[f32], gradient: &[f32], width: usize, scale: f32) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let mut input = vec![0.0; output.len()];
    let chunk = task_rows(width) * width;
    let tasks = input.par_chunks_mut(chunk).zip(output.par_chunks(chunk)).zip(gradient.par_chunks(chunk));
    tasks.for_each(|((input, output), gradient)| {
        arch.dispatch(
            #[inline(always)]
            || {
                let rows = input.chunks_exact_mut(width).zip(output.chunks_exact(width));
                for ((input, output), gradient) in rows.zip(gradient.chunks_exact(width)) {
                    let shared = sum_pairs(output, gradient, |p, g| p * g);
                    for ((input, p), g) in input.iter_mut().zip(output).zip(gradient) {
                        *input = scale * p * (g - shared);
                    }
                }
            },
        );
    });
    input
}
