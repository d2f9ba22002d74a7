//! AdamW on the flat float32 master copy, and its learning-rate schedule.
//!
//! Gradients arrive on the host, because they were summed over the network, so the optimizer runs there:
//! one pass over four arrays, element by element, which neither the number of threads nor the width of the processor's
//! vectors can change.

use rayon::prelude::*;

use crate::tensors::FlatLayout;

/// Constants of AdamW (Loshchilov & Hutter, arXiv 1711.05101), with PyTorch's semantics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay of tensors for which [`crate::tensors::FlatTensor::decays`] holds.
    pub weight_decay: f64,
}

/// First and second moments of every trainable element.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
}

impl Moments {
    /// Zeros for `len` elements.
    pub fn zeros(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }
}

/// Elements one task updates at a time.
const CHUNK: usize = 1 << 16;

impl AdamW {
    /// Applies update number `update` (1 for the first) to `parameters`.
    ///
    /// All buffers follow `layout`.
    pub fn apply(
        &self,
        layout: &FlatLayout,
        update: u64,
        learning_rate: f64,
        parameters: &mut [f32],
        gradients: &[f32],
        moments: &mut Moments,
    ) {
        let correction1 = 1.0 - libm::pow(self.beta1, update as f64);
        let correction2 = libm::sqrt(1.0 - libm::pow(self.beta2, update as f64)) as f32;
        let step_size = (learning_rate / correction1) as f32;
        let (beta1, beta2, epsilon) = (self.beta1 as f32, self.beta2 as f32, self.epsilon as f32);
        let arch = pulp::Arch::new();
        for tensor in layout.tensors() {
            let range = tensor.range();
            let keep = if tensor.decays() { (1.0 - learning_rate * self.weight_decay) as f32 } else { 1.0 };
            parameters[range.clone()]
                .par_chunks_mut(CHUNK)
                .zip(gradients[range.clone()].par_chunks(CHUNK))
                .zip(moments.first[range.clone()].par_chunks_mut(CHUNK))
                .zip(moments.second[range].par_chunks_mut(CHUNK))
                .for_each(|(((parameters, gradients), first), second)| {
                    arch.dispatch(
                        #[inline(always)]
                        || {
                            for (((parameter, gradient), first), second) in
                                parameters.iter_mut().zip(gradients).zip(first).zip(second)
                            {
                                *first = beta1 * *first + (1.0 - beta1) * gradient;
                                *second = beta2 * *second + (1.0 - beta2) * gradient * gradient;
                                let denominator = second.sqrt() / correction2 + epsilon;
                                *parameter = *parameter * keep - step_size * *first / denominator;
                            }
                        },
                    );
                });
        }
    }
}

/// Scales `gradients` so that their global norm is at most `limit`; returns the norm before.
///
/// The sum of squares runs in float64 over fixed chunks and lanes in order, so every member gets the same bits.
pub fn clip_by_global_norm(gradients: &mut [f32], limit: f64) -> f64 {
    let arch = pulp::Arch::new();
    let squares = |chunk: &[f32]| {
        arch.dispatch(
            #[inline(always)]
            || sum_of_squares(chunk),
        )
    };
    let partial: Vec<f64> = gradients.par_chunks(CHUNK).map(squares).collect();
    let norm = libm::sqrt(partial.iter().sum());
    if norm > limit {
        let scale = (limit / (norm + 1e-6)) as f32;
        gradients.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|g| *g *= scale));
    }
    norm
}

/// Sums that do not wait for each other.
const LANES: usize = 16;

#[inline(always)]
fn sum_of_squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*value) * f64::from(*value);
    }
    lanes.iter().sum()
}

/// Linear warm-up, then a cosine from the peak to the minimum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Learning rate after the warm-up.
    pub peak: f64,
    /// Learning rate at the end.
    pub minimum: f64,
    /// Learning rate of the first step of the warm-up.
    pub warmup_start: f64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// All steps, warm-up included.
    pub steps: u64,
}

impl Schedule {
    /// The learning rate of step `step` (0 for the first): a function of the step alone.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            let share = step as f64 / self.warmup_steps as f64;
            return self.warmup_start + (self.peak - self.warmup_start) * share;
        }
        let length = self.steps.saturating_sub(self.warmup_steps).max(1);
        let share = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        let cosine = libm::cos(std::f64::consts::PI * share);
        self.minimum + 0.5 * (self.peak - self.minimum) * (1.0 + cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constants() -> AdamW {
        AdamW { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weight_decay: 0.05 }
    }

    #[test]
    fn decay_spares_biases_and_vectors() {
        let layout = FlatLayout::new(vec![
            ("a.bias".into(), vec![2]),
            ("a.weight".into(), vec![1, 2]),
            ("temp".into(), vec![1]),
        ]);
        let mut parameters = vec![1.0; 5];
        constants().apply(&layout, 1, 0.1, &mut parameters, &[0.0; 5], &mut Moments::zeros(5));
        assert_eq!(parameters, vec![1.0, 1.0, 0.995, 0.995, 1.0]);
    }

    #[test]
    fn first_update_has_the_size_of_the_learning_rate() {
        let layout = FlatLayout::new(vec![("a".into(), vec![2])]);
        let mut parameters = vec![0.0; 2];
        constants().apply(&layout, 1, 0.01, &mut parameters, &[3.0, -0.5], &mut Moments::zeros(2));
        assert!((parameters[0] + 0.01).abs() < 1e-6 && (parameters[1] - 0.01).abs() < 1e-6, "{parameters:?}");
    }

    #[test]
    fn clipping_scales_to_the_limit() {
        let mut gradients = vec![3.0, 4.0];
        assert_eq!(clip_by_global_norm(&mut gradients, 1.0), 5.0);
        assert!((gradients[0] - 0.6).abs() < 1e-6 && (gradients[1] - 0.8).abs() < 1e-6);
        let before = gradients.clone();
        clip_by_global_norm(&mut gradients, 10.0);
        assert_eq!(gradients, before);
    }

    #[test]
    fn the_norm_leaves_no_element_out() {
        for length in [0, 1, 15, 16, 17, CHUNK - 1, CHUNK + 33] {
            let mut gradients: Vec<f32> = (0..length).map(|at| (at % 5) as f32 - 2.0).collect();
            let squares: f64 = gradients.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
            assert_eq!(clip_by_global_norm(&mut gradients, f64::INFINITY), squares.sqrt(), "{length}");
        }
    }

    #[test]
    fn schedule_warms_up_and_ends_at_the_minimum() {
        let schedule =
            Schedule { peak: 1e-4, minimum: 1e-5, warmup_start: 1e-6, warmup_steps: 5000, steps: 10_000 };
        let close = |step, want: f64| {
            let got = schedule.learning_rate(step);
            assert!((got - want).abs() < 1e-12, "step {step}: {got} != {want}");
        };
        close(0, 1e-6);
        close(2500, 5.05e-5);
        close(5000, 1e-4);
        close(7500, 5.5e-5);
        close(10_000, 1e-5);
        close(20_000, 1e-5);
    }
}
