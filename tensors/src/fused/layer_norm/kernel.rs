//! Layer normalisation over rows, and its gradients.

use rayon::prelude::*;

use crate::fused::kernels::lanes::{sum as sum_of, sum_pairs};
use crate::fused::kernels::{PARTIAL_ROWS, TASK, task_rows};

/// What a row was normalised with: its mean, and `1 / √(variance + ε)`.
pub(super) type Moments = [f32; 2];

/// Adds `b` to `a`.
pub(super) fn add(a: &mut [f32], b: &[f32]) {
    a.par_chunks_mut(TASK).zip(b.par_chunks(TASK)).for_each(|(a, b)| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    });
}

/// Rows as wide as `weight`, normalised, scaled and shifted; and what they were normalised with.
pub(super) fn forward(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) -> (Vec<f32>, Vec<Moments>) {
    let width = weight.len();
    let arch = pulp::Arch::new();
    let mut output = vec![0.0; x.len()];
    let mut moments = vec![[0.0; 2]; x.len() / width.max(1)];
    let rows = task_rows(width);
    let tasks = output.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width));
    tasks.zip(moments.par_chunks_mut(rows)).for_each(|((output, x), moments)| {
        arch.dispatch(
            #[inline(always)]
            || {
                let rows = output.chunks_exact_mut(width).zip(x.chunks_exact(width));
                for ((output, x), moments) in rows.zip(moments) {
                    let mean = sum_of(x, |x| x) / width as f32;
                    let variance = sum_of(x, |x| (x - mean) * (x - mean)) / width as f32;
                    let reciprocal = 1.0 / (variance + epsilon).sqrt();
                    *moments = [mean, reciprocal];
                    for (((output, x), weight), bias) in output.iter_mut().zip(x).zip(weight).zip(bias) {
                        *output = (x - mean) * reciprocal * weight + bias;
                    }
                }
            },
        );
    });
    (output, moments)
}

/// Turns the output's gradient into that of the normalised rows; the gradients of weight and bias.
pub(super) fn backward_in_place(
    gradient: &mut [f32],
    x: &[f32],
    moments: &[Moments],
    weight: &[f32],
) -> [Vec<f32>; 2] {
    let width = weight.len();
    let arch = pulp::Arch::new();
    let chunk = PARTIAL_ROWS * width;
    let tasks = gradient.par_chunks_mut(chunk).zip(x.par_chunks(chunk));
    let partial: Vec<[Vec<f32>; 2]> = tasks
        .zip(moments.par_chunks(PARTIAL_ROWS))
        .map(|((gradient, x), moments)| {
            let mut sums = [vec![0.0; width], vec![0.0; width]];
            arch.dispatch(
                #[inline(always)]
                || {
                    let rows = gradient.chunks_exact_mut(width).zip(x.chunks_exact(width));
                    for ((gradient, x), moments) in rows.zip(moments) {
                        add_row(&mut sums, x, gradient, *moments);
                        row_gradient(gradient, x, weight, *moments);
                    }
                },
            );
            sums
        })
        .collect();
    let mut sums = [vec![0.0; width], vec![0.0; width]];
    for part in &partial {
        for (sum, part) in sums.iter_mut().zip(part) {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
    sums
}

/// Adds a row's share of the gradients of weight and bias.
#[inline(always)]
fn add_row([weight, bias]: &mut [Vec<f32>; 2], x: &[f32], gradient: &[f32], [mean, reciprocal]: Moments) {
    for (((weight, bias), x), gradient) in weight.iter_mut().zip(bias).zip(x).zip(gradient) {
        *weight += gradient * (x - mean) * reciprocal;
        *bias += gradient;
    }
}

/// `r · (g w - mean(g w) - x̂ mean(g w x̂))` with the normalised row `x̂` and its reciprocal deviation `r`.
#[inline(always)]
fn row_gradient(gradient: &mut [f32], x: &[f32], weight: &[f32], [mean, reciprocal]: Moments) {
    let width = x.len() as f32;
    gradient.iter_mut().zip(weight).for_each(|(gradient, weight)| *gradient *= weight);
    let mean_gradient = sum_of(gradient, |g| g) / width;
    let projection = sum_pairs(gradient, x, |g, x| g * (x - mean)) * reciprocal / width;
    for (gradient, x) in gradient.iter_mut().zip(x) {
        let normalised = (x - mean) * reciprocal;
        *gradient = reciprocal * (*gradient - mean_gradient - normalised * projection);
    }
}
