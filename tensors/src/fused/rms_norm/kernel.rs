//! Division of rows by their root mean square, and its gradients.

use rayon::prelude::*;

use crate::fused::kernels::lanes::{sum as sum_of, sum_pairs};
use crate::fused::kernels::{PARTIAL_ROWS, task_rows};

/// Rows as wide as `weight`, divided and scaled; and the reciprocals of their root mean squares.
pub(super) fn forward(x: &[f32], weight: &[f32], epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let arch = pulp::Arch::new();
    let mut output = vec![0.0; x.len()];
    let mut reciprocals = vec![0.0; x.len() / width.max(1)];
    let rows = task_rows(width);
    let tasks = output.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width));
    tasks.zip(reciprocals.par_chunks_mut(rows)).for_each(|((output, x), reciprocals)| {
        arch.dispatch(
            #[inline(always)]
            || {
                let rows = output.chunks_exact_mut(width).zip(x.chunks_exact(width));
                for ((output, x), reciprocal) in rows.zip(reciprocals) {
                    *reciprocal = 1.0 / (sum_of(x, |x| x * x) / width as f32 + epsilon).sqrt();
                    for ((output, x), weight) in output.iter_mut().zip(x).zip(weight) {
                        *output = x * *reciprocal * weight;
                    }
                }
            },
        );
    });
    (output, reciprocals)
}

/// Turns the output's gradient into that of the rows; the gradient of the weight.
pub(super) fn backward_in_place(
    gradient: &mut [f32],
    x: &[f32],
    reciprocals: &[f32],
    weight: &[f32],
) -> Vec<f32> {
    let width = weight.len();
    let arch = pulp::Arch::new();
    let chunk = PARTIAL_ROWS * width;
    let tasks = gradient.par_chunks_mut(chunk).zip(x.par_chunks(chunk));
    let partial: Vec<Vec<f32>> = tasks
        .zip(reciprocals.par_chunks(PARTIAL_ROWS))
        .map(|((gradient, x), reciprocals)| {
            let mut sum = vec![0.0; width];
            arch.dispatch(
                #[inline(always)]
                || {
                    let rows = gradient.chunks_exact_mut(width).zip(x.chunks_exact(width));
                    for ((gradient, x), reciprocal) in rows.zip(reciprocals) {
                        for ((sum, gradient), x) in sum.iter_mut().zip(&*gradient).zip(x) {
                            *sum += gradient * x * reciprocal;
                        }
                        row_gradient(gradient, x, weight, *reciprocal);
                    }
                },
            );
            sum
        })
        .collect();
    let mut sum = vec![0.0; width];
    for part in &partial {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// `r · (g w - x̂ mean(g w x̂))` with the divided row `x̂` and the reciprocal `r`.
#[inline(always)]
fn row_gradient(gradient: &mut [f32], x: &[f32], weight: &[f32], reciprocal: f32) {
    gradient.iter_mut().zip(weight).for_each(|(gradient, weight)| *gradient *= weight);
    let projection = sum_pairs(gradient, x, |g, x| g * x) * reciprocal / x.len() as f32;
    for (gradient, x) in gradient.iter_mut().zip(x) {
        *gradient = reciprocal * (*gradient - x * reciprocal * projection);
    }
}
