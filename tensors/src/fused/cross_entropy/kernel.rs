//! Softmax cross-entropy of rows of logits, with label smoothing, and its gradient.

use rayon::prelude::*;

use crate::fused::kernels::exponential::exp;
use crate::fused::kernels::lanes::{largest, sum};

/// What rows of logits are compared with.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    /// The class of each row; below 0 in rows that do not count.
    pub(crate) labels: Vec<i32>,
    /// The part of the target that all classes share evenly.
    pub(crate) smoothing: f32,
    /// Factor of losses and gradients.
    pub(crate) scale: f32,
}

impl Targets {
    /// What each of `classes` has of the smoothed part.
    #[inline(always)]
    fn share(&self, classes: usize) -> f32 {
        self.smoothing / classes as f32
    }

    #[inline(always)]
    fn loss(&self, logits: &[f32], class: usize, log_normaliser: f32) -> f32 {
        let smooth = match self.smoothing {
            0.0 => 0.0,
            _ => self.share(logits.len()) * sum(logits, |value| value),
        };
        self.scale * (log_normaliser - (1.0 - self.smoothing) * logits[class] - smooth)
    }
}

/// The class of a label, if its row counts.
#[inline(always)]
fn class_of(label: i32) -> Option<usize> {
    usize::try_from(label).ok()
}

/// The loss of each row of `classes` logits.
pub(super) fn losses(logits: &[f32], classes: usize, targets: &Targets) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let rows = logits.par_chunks_exact(classes).zip(&targets.labels);
    rows.map(|(logits, label)| {
        let Some(class) = class_of(*label) else { return 0.0 };
        arch.dispatch(
            #[inline(always)]
            || {
                let shift = largest(logits);
                let normaliser = sum(logits, |value| exp(value - shift));
                targets.loss(logits, class, libm::logf(normaliser) + shift)
            },
        )
    })
    .collect()
}

/// The loss of each row, and its gradient.
pub(super) fn with_gradient(logits: &[f32], classes: usize, targets: &Targets) -> (Vec<f32>, Vec<f32>) {
    let arch = pulp::Arch::new();
    let (mut losses, mut gradient) = (vec![0.0; targets.labels.len()], vec![0.0; logits.len()]);
    let rows = gradient.par_chunks_exact_mut(classes).zip(&mut losses);
    let rows = rows.zip(logits.par_chunks_exact(classes)).zip(&targets.labels);
    rows.for_each(|(((gradient, row_loss), logits), label)| {
        let Some(class) = class_of(*label) else { return };
        arch.dispatch(
            #[inline(always)]
            || {
                let shift = largest(logits);
                for (gradient, value) in gradient.iter_mut().zip(logits) {
                    *gradient = exp(*value - shift);
                }
                let normaliser = sum(gradient, |value| value);
                *row_loss = targets.loss(logits, class, libm::logf(normaliser) + shift);
                let (factor, share) = (targets.scale / normaliser, targets.scale * targets.share(classes));
                gradient.iter_mut().for_each(|value| *value = *value * factor - share);
                gradient[class] -= targets.scale * (1.0 - targets.smoothing);
            },
        );
    });
    (losses, gradient)
}

/// Multiplies each row of `gradient` by the row's factor.
pub(super) fn scale_rows(gradient: &mut [f32], classes: usize, factors: &[f32]) {
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
