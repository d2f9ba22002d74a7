//! Softmax cross-entropy of rows of logits, with label smoothing, and its gradient.

use rayon::prelude::*;

use super::exponential::exp;
use super::lanes::{largest, sum};

/// What a row is compared with.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct Target {
    /// The row's class; none in rows that do not count.
    pub(in crate::fused) class: Option<usize>,
    /// The part of the target that all classes share evenly.
    pub(in crate::fused) smoothing: f32,
    /// Factor of loss and gradient.
    pub(in crate::fused) scale: f32,
}

/// The loss of each row of `classes` logits.
pub(in crate::fused) fn losses(logits: &[f32], classes: usize, targets: &[Target]) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let rows = logits.par_chunks_exact(classes).zip(targets);
    rows.map(|(logits, target)| {
        arch.dispatch(
            #[inline(always)]
            || match target.class {
                Some(class) => {
                    let shift = largest(logits);
                    let normaliser = sum(logits, |value| exp(value - shift));
                    loss(logits, class, *target, libm::logf(normaliser) + shift)
                }
                None => 0.0,
            },
        )
    })
    .collect()
}

/// The loss of each row, and its gradient.
pub(in crate::fused) fn with_gradient(
    logits: &[f32],
    classes: usize,
    targets: &[Target],
) -> (Vec<f32>, Vec<f32>) {
    let arch = pulp::Arch::new();
    let (mut losses, mut gradient) = (vec![0.0; targets.len()], vec![0.0; logits.len()]);
    let rows = gradient.par_chunks_exact_mut(classes).zip(&mut losses);
    let rows = rows.zip(logits.par_chunks_exact(classes)).zip(targets);
    rows.for_each(|(((gradient, row_loss), logits), target)| {
        let Some(class) = target.class else { return };
        arch.dispatch(
            #[inline(always)]
            || {
                let shift = largest(logits);
                for (gradient, value) in gradient.iter_mut().zip(logits) {
                    *gradient = exp(*value - shift);
                }
                let normaliser = sum(gradient, |value| value);
                *row_loss = loss(logits, class, *target, libm::logf(normaliser) + shift);
                let (factor, share) = (target.scale / normaliser, target.scale * share_of(logits, *target));
                gradient.iter_mut().for_each(|value| *value = *value * factor - share);
                gradient[class] -= target.scale * (1.0 - target.smoothing);
            },
        );
    });
    (losses, gradient)
}

/// What each class has of the smoothed part of the target.
#[inline(always)]
fn share_of(logits: &[f32], target: Target) -> f32 {
    target.smoothing / logits.len() as f32
}

#[inline(always)]
fn loss(logits: &[f32], class: usize, target: Target, log_normaliser: f32) -> f32 {
    let smooth = match target.smoothing {
        0.0 => 0.0,
        _ => share_of(logits, target) * sum(logits, |value| value),
    };
    target.scale * (log_normaliser - (1.0 - target.smoothing) * logits[class] - smooth)
}

/// Multiplies each row of `gradient` by the row's factor.
pub(in crate::fused) fn scale_rows(gradient: &mut [f32], classes: usize, factors: &[f32]) {
    let arch = pulp::Arch::new();
    gradient.par_chunks_exact_mut(classes).zip(factors).filter(|(_, factor)| **factor != 1.0).for_each(
        |(row, factor)| {
            arch.dispatch(
                #[inline(always)]
                || row.iter_mut().for_each(|value| *value *= factor),
            );
        },
    );
}
