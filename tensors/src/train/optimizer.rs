//! AdamW on the flat float32 master copy, and its learning-rate schedule.
//!
//! Gradients arrive on the host, because they were summed over the network, so the optimizer runs there: one
//! pass over four arrays, element by element, which neither the number of threads nor the width of the
//! processor's vectors can change.

use std::ops::Range;

use rayon::prelude::*;

use crate::train::flat::{FlatLayout, FlatTensor};

/// Constants of AdamW (Loshchilov & Hutter, arXiv 1711.05101), with PyTorch's semantics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay of tensors for which [`crate::train::flat::FlatTensor::decays`] holds.
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

/// Which update is made, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// 1 for the first.
    pub update: u64,
    /// Of this update.
    pub learning_rate: f64,
    /// What the gradient is multiplied by first.
    pub factor: f32,
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
        let arch = pulp::Arch::new();
        for tensor in layout.tensors() {
            let range = tensor.range();
            let update = self.update_of(tensor, update, learning_rate);
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
                                update.apply(parameter, *gradient, first, second);
                            }
                        },
                    );
                });
        }
    }

    /// Writes to `next` what update number `update` makes of the state `held`, for one tensor of the layout,
    /// with `gradients` multiplied by `factor` first. The bits are those of [`scale`] and [`AdamW::apply`];
    /// nothing else is changed.
    pub fn apply_beside(
        &self,
        tensor: &FlatTensor,
        AdamWStep { update, learning_rate, factor }: AdamWStep,
        gradients: &[f32],
        held: (&[f32], &Moments),
        next: (&mut [f32], &mut Moments),
    ) {
        let arch = pulp::Arch::new();
        let (range, update) = (tensor.range(), self.update_of(tensor, update, learning_rate));
        let before = held.0[range.clone()]
            .par_chunks(CHUNK)
            .zip(held.1.first[range.clone()].par_chunks(CHUNK))
            .zip(held.1.second[range.clone()].par_chunks(CHUNK));
        let after = next.0[range.clone()]
            .par_chunks_mut(CHUNK)
            .zip(next.1.first[range.clone()].par_chunks_mut(CHUNK))
            .zip(next.1.second[range.clone()].par_chunks_mut(CHUNK));
        gradients[range].par_chunks(CHUNK).zip(before).zip(after).for_each(|((gradients, before), after)| {
            let ((parameters, first), second) = before;
            let ((next_parameters, next_first), next_second) = after;
            arch.dispatch(
                #[inline(always)]
                || {
                    next_parameters.copy_from_slice(parameters);
                    next_first.copy_from_slice(first);
                    next_second.copy_from_slice(second);
                    let next = next_parameters.iter_mut().zip(next_first).zip(next_second);
                    for (((parameter, first), second), gradient) in next.zip(gradients) {
                        update.apply(parameter, gradient * factor, first, second);
                    }
                },
            );
        });
    }

    fn update_of(&self, tensor: &FlatTensor, update: u64, learning_rate: f64) -> Update {
        let learning_rate = learning_rate * tensor.learning_rate_scale;
        Update {
            step_size: (learning_rate / (1.0 - libm::pow(self.beta1, update as f64))) as f32,
            keep: if tensor.decays() { (1.0 - learning_rate * self.weight_decay) as f32 } else { 1.0 },
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            correction2: libm::sqrt(1.0 - libm::pow(self.beta2, update as f64)) as f32,
            epsilon: self.epsilon as f32,
        }
    }

    /// The first tensor in which [`AdamW::apply`] would leave a value that is not finite, with `gradients`
    /// scaled by `scale` first; nothing is changed.
    pub fn first_overflow<'a>(
        &self,
        layout: &'a FlatLayout,
        update: u64,
        learning_rate: f64,
        scale: f32,
        state: (&[f32], &Moments),
        gradients: &[f32],
    ) -> Option<&'a str> {
        let (parameters, moments) = state;
        let overflows = |tensor: &&FlatTensor| {
            let range = tensor.range();
            let update = self.update_of(tensor, update, learning_rate);
            parameters[range.clone()]
                .par_iter()
                .zip(&gradients[range.clone()])
                .zip(&moments.first[range.clone()])
                .zip(&moments.second[range])
                .any(|(((parameter, gradient), first), second)| {
                    let (mut parameter, mut first, mut second) = (*parameter, *first, *second);
                    update.apply(&mut parameter, gradient * scale, &mut first, &mut second);
                    !(parameter.is_finite() && first.is_finite() && second.is_finite())
                })
        };
        layout.tensors().iter().find(overflows).map(|tensor| tensor.name.as_str())
    }

    /// Bounds of a state's values before and after an update with a gradient of this global norm, from those
    /// before it.
    ///
    /// They are far from tight, and cost nothing: while they are finite, so is every value.
    pub fn bounds_after(&self, before: Magnitudes, update: u64, learning_rate: f64, norm: f64) -> Magnitudes {
        let as_applied = |constant: f64| f64::from(constant as f32);
        let (beta1, beta2) = (as_applied(self.beta1), as_applied(self.beta2));
        // NaN is larger than everything.
        let larger = |before: f64, after: f64| if before >= after { before } else { after };
        let first = larger(before.first, (beta1 * before.first + (1.0 - beta1) * norm) * ROUNDING);
        let second = larger(before.second, (beta2 * before.second + (1.0 - beta2) * norm * norm) * ROUNDING);
        let keep = (1.0 - learning_rate * self.weight_decay).abs().max(1.0);
        let step_size = learning_rate / (1.0 - libm::pow(self.beta1, update as f64));
        let stride = step_size * first / as_applied(self.epsilon);
        // The factors themselves must be float32 too: infinity times zero is no number.
        let parameter = (before.parameter * keep + stride + keep + step_size) * ROUNDING;
        Magnitudes { parameter, first, second }
    }
}

/// Room for what float32 rounds up.
const ROUNDING: f64 = 1.0 + 1e-5;

/// The largest absolute values of a state, or bounds of them; infinite where a value is not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Magnitudes {
    /// Of the parameters.
    pub parameter: f64,
    /// Of the first moments.
    pub first: f64,
    /// Of the second moments.
    pub second: f64,
}

impl Magnitudes {
    /// Those of a state.
    pub fn of(parameters: &[f32], moments: &Moments) -> Self {
        let largest = |values: &[f32]| {
            let of_chunk = |chunk: &[f32]| {
                chunk.iter().fold(0.0f32, |most, value| {
                    let size = value.abs();
                    // The comparison with a NaN fails.
                    if size <= f32::MAX { most.max(size) } else { f32::INFINITY }
                })
            };
            f64::from(values.par_chunks(CHUNK).map(of_chunk).reduce(|| 0.0, f32::max))
        };
        Self {
            parameter: largest(parameters),
            first: largest(&moments.first),
            second: largest(&moments.second),
        }
    }

    /// Whether float32 holds values of these sizes, and sums and products on the way to them.
    pub fn are_safe(&self) -> bool {
        [self.parameter, self.first, self.second].iter().all(|size| *size < f64::from(f32::MAX) / 4.0)
    }

    /// Whether all values are finite.
    pub fn are_finite(&self) -> bool {
        [self.parameter, self.first, self.second].iter().all(|size| size.is_finite())
    }
}

/// One update of one tensor.
#[derive(Debug, Clone, Copy)]
struct Update {
    step_size: f32,
    /// What decay leaves of a parameter.
    keep: f32,
    beta1: f32,
    beta2: f32,
    correction2: f32,
    epsilon: f32,
}

impl Update {
    #[inline(always)]
    fn apply(&self, parameter: &mut f32, gradient: f32, first: &mut f32, second: &mut f32) {
        *first = self.beta1 * *first + (1.0 - self.beta1) * gradient;
        *second = self.beta2 * *second + (1.0 - self.beta2) * gradient * gradient;
        let denominator = second.sqrt() / self.correction2 + self.epsilon;
        *parameter = *parameter * self.keep - self.step_size * *first / denominator;
    }
}

/// The global norm of `gradients`; not finite exactly when one of them is not.
///
/// The sum of squares runs in float64 over fixed chunks and lanes in order, so every member gets the same
/// bits.
pub fn global_norm(gradients: &[f32]) -> f64 {
    let mut parts = NormParts::new(gradients.len());
    parts.add(gradients, std::slice::from_ref(&(0..gradients.len())));
    parts.norm()
}

/// The global norm of a gradient whose ranges become known in any order: the bits are those of
/// [`global_norm`], whatever the order.
#[derive(Debug, Clone)]
pub struct NormParts {
    /// Of each chunk, once it is complete.
    squares: Vec<f64>,
    /// Elements of each chunk that are not known.
    missing: Vec<usize>,
}

impl NormParts {
    /// For a gradient of `len` elements, none of which is known.
    pub fn new(len: usize) -> Self {
        let missing: Vec<usize> =
            (0..len.div_ceil(CHUNK)).map(|chunk| CHUNK.min(len - chunk * CHUNK)).collect();
        Self { squares: vec![0.0; missing.len()], missing }
    }

    /// Takes up that `ranges` of `gradients` have their values; each element belongs to one range once.
    ///
    /// # Panics
    /// More elements than there are.
    pub fn add(&mut self, gradients: &[f32], ranges: &[Range<usize>]) {
        let mut complete = Vec::new();
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            for chunk in range.start / CHUNK..=(range.end - 1) / CHUNK {
                let common = range.end.min((chunk + 1) * CHUNK) - range.start.max(chunk * CHUNK);
                self.missing[chunk] -= common;
                if self.missing[chunk] == 0 {
                    complete.push(chunk);
                }
            }
        }
        let arch = pulp::Arch::new();
        let squares = |chunk: usize| {
            let end = gradients.len().min((chunk + 1) * CHUNK);
            arch.dispatch(
                #[inline(always)]
                || sum_of_squares(&gradients[chunk * CHUNK..end]),
            )
        };
        let known: Vec<f64> = complete.par_iter().map(|chunk| squares(*chunk)).collect();
        for (chunk, squares) in complete.into_iter().zip(known) {
            self.squares[chunk] = squares;
        }
    }

    /// Whether every element is known.
    pub fn is_complete(&self) -> bool {
        self.missing.iter().all(|missing| *missing == 0)
    }

    /// The norm of the chunks that are known.
    pub fn norm(&self) -> f64 {
        libm::sqrt(self.squares.iter().sum())
    }
}

/// The factor that brings a gradient of the global norm `norm` to at most `limit`; 1 for one that is within.
pub fn clip_factor(norm: f64, limit: f64) -> f32 {
    if norm > limit { (limit / (norm + 1e-6)) as f32 } else { 1.0 }
}

/// Multiplies `gradients` by `factor`.
pub fn scale(gradients: &mut [f32], factor: f32) {
    if factor != 1.0 {
        gradients.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|g| *g *= factor));
    }
}

/// Divides `gradients` by `divisor`.
pub fn divide(gradients: &mut [f32], divisor: f32) {
    gradients.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|g| *g /= divisor));
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
        assert_eq!(global_norm(&gradients), 5.0);
        scale(&mut gradients, clip_factor(5.0, 1.0));
        assert!((gradients[0] - 0.6).abs() < 1e-6 && (gradients[1] - 0.8).abs() < 1e-6);
        assert_eq!(clip_factor(5.0, 10.0), 1.0);
    }

    #[test]
    fn the_norm_of_parts_in_any_order_has_the_bits_of_the_whole() {
        let length = 3 * CHUNK + 7;
        let gradients: Vec<f32> = (0..length).map(|at| (at as f32 * 0.731).sin() * 1e-3).collect();
        let cuts = [0, 5, CHUNK - 1, CHUNK + 40, 2 * CHUNK, 3 * CHUNK + 2, length];
        let mut ranges: Vec<Range<usize>> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
        for _ in 0..ranges.len() {
            ranges.rotate_left(1);
            let mut parts = NormParts::new(length);
            for (at, pair) in ranges.chunks(2).enumerate() {
                assert!(!parts.is_complete(), "{at}");
                parts.add(&gradients, pair);
            }
            assert!(parts.is_complete());
            assert_eq!(parts.norm().to_bits(), global_norm(&gradients).to_bits());
        }
        let in_order: f64 = gradients.chunks(CHUNK).map(sum_of_squares).sum();
        assert_eq!(global_norm(&gradients), in_order.sqrt());
    }

    #[test]
    fn the_norm_leaves_no_element_out() {
        for length in [0, 1, 15, 16, 17, CHUNK - 1, CHUNK + 33] {
            let gradients: Vec<f32> = (0..length).map(|at| (at % 5) as f32 - 2.0).collect();
            let squares: f64 = gradients.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
            assert_eq!(global_norm(&gradients), squares.sqrt(), "{length}");
        }
    }

    /// A state of three values, and an update that is or is not too large for it.
    fn overflow(
        parameters: [f32; 3],
        moments: Moments,
        learning_rate: f64,
        gradient: [f32; 3],
    ) -> Option<String> {
        let layout = FlatLayout::new(vec![("a.weight".into(), vec![1, 1]), ("b".into(), vec![2])]);
        let state = (&parameters[..], &moments);
        let exact = constants().first_overflow(&layout, 1, learning_rate, 1.0, state, &gradient);
        let mut after = (parameters.to_vec(), moments.clone());
        constants().apply(&layout, 1, learning_rate, &mut after.0, &gradient, &mut after.1);
        let after = Magnitudes::of(&after.0, &after.1);
        assert_eq!(after.are_finite(), exact.is_none(), "{after:?}");
        let norm = global_norm(&gradient);
        let bounds = constants().bounds_after(Magnitudes::of(&parameters, &moments), 1, learning_rate, norm);
        assert!(!bounds.are_safe() || exact.is_none(), "{bounds:?}");
        if exact.is_none() {
            let holds = after.parameter <= bounds.parameter && after.first <= bounds.first;
            assert!(holds && after.second <= bounds.second, "{after:?} {bounds:?}");
        }
        exact.map(str::to_owned)
    }

    #[test]
    fn an_update_that_overflows_is_known_before_it_is_made() {
        let zeros = || Moments::zeros(3);
        assert_eq!(overflow([1.0, -2.0, 3.0], zeros(), 1e-3, [0.5, -1.0, 2.0]), None);
        assert_eq!(overflow([0.0; 3], zeros(), 1e30, [1.0; 3]), None);
        assert_eq!(overflow([0.0; 3], zeros(), 1e39, [0.0, 0.0, 1.0]).as_deref(), Some("a.weight"));
        assert_eq!(overflow([f32::MAX; 3], zeros(), 3e38, [0.0, -1.0, 0.0]).as_deref(), Some("a.weight"));
        // The square of a finite gradient.
        assert_eq!(overflow([0.0; 3], zeros(), 1e-3, [0.0, 1e25, 0.0]).as_deref(), Some("b"));
        assert_eq!(overflow([0.0; 3], zeros(), 1e-3, [0.0, 0.0, f32::NAN]).as_deref(), Some("b"));
        let full = Moments { first: vec![f32::MAX; 3], second: vec![f32::MAX; 3] };
        assert_eq!(overflow([1.0; 3], full, 1e-3, [0.1; 3]), None);
    }

    #[test]
    fn magnitudes_miss_no_value_that_is_not_finite() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 7, CHUNK + 1] {
                let mut values = vec![0.25; CHUNK + 2];
                values[at] = odd;
                assert!(!Magnitudes::of(&values, &Moments::zeros(1)).are_finite(), "{odd} at {at}");
                assert!(!global_norm(&values).is_finite(), "{odd} at {at}");
            }
        }
        assert!(Magnitudes::of(&[f32::MAX, -f32::MAX], &Moments::zeros(1)).are_finite());
        assert!(global_norm(&[f32::MAX; 100]).is_finite());
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
