//! Where the summed gradient lands, part by part: its norm, and the state that it leads to.
//!
//! A part whose sum has arrived is final. Its share of the norm, AdamW and the way of its new parameters to
//! the device are done at once, while other parts are still being differentiated or travelling. Where the
//! norm decides on clipping, AdamW waits for the last part. All of it is written beside the state that is
//! held, so a step that is never committed leaves nothing behind, and one that is committed has nothing left
//! to compute.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use blip2_collective::CollectiveError;
use blip2_tensors::train::buckets::GradientBuckets;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::optimizer::{AdamW, AdamWStep, Moments, NormParts, clip_factor, divide, scale};
use blip2_tensors::train::placed::PlacedTensors;
use burn::tensor::Device;

use super::next::{NextBuffers, NextState};
use super::times::Stopwatch;
use super::traffic::bytes_of;
use crate::error::{Result, WorkerError};

/// One thing that is summed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    Part(usize),
    Values,
}

/// What is made of the gradient.
#[derive(Debug, Clone)]
pub(crate) struct LandingPlan {
    pub(crate) adamw: AdamW,
    /// 1 for the first of the stage.
    pub(crate) update: u64,
    pub(crate) learning_rate: f64,
    /// 0: off.
    pub(crate) clip_norm: f64,
    /// Where a parameter is kept, and within which bounds.
    pub(crate) bounded: Option<(Range<usize>, (f32, f32))>,
    /// The value by which the summed gradient is divided, at least by 1.
    pub(crate) divisor: Option<usize>,
}

impl LandingPlan {
    /// The step itself on buffers that follow `layout`, all at once; `clip` brings the gradient to
    /// `clip_norm`.
    pub(crate) fn update_whole(
        &self,
        layout: &FlatLayout,
        clip: f32,
        parameters: &mut [f32],
        moments: &mut Moments,
        gradients: &mut [f32],
    ) {
        scale(gradients, clip);
        self.adamw.apply(layout, self.update, self.learning_rate, parameters, gradients, moments);
        if let Some((range, (low, high))) = &self.bounded {
            parameters[range.clone()].iter_mut().for_each(|value| *value = value.clamp(*low, *high));
        }
    }
}

/// The state from which the next one follows, and its buffers.
pub(crate) struct Beside<'a> {
    pub(crate) parameters: &'a [f32],
    pub(crate) moments: &'a Moments,
    /// Whatever they hold.
    pub(crate) buffers: NextBuffers,
    /// The model's, with autodiff.
    pub(crate) device: Device,
}

/// The gradient of the global batch and what it leads to, equal on every member.
pub(crate) struct Landed {
    /// In the state's layout.
    pub(crate) gradients: Vec<f32>,
    /// What the slots gave besides, always summed in float32.
    pub(crate) values: Vec<f32>,
    /// What each of the own slots gave besides.
    pub(crate) own_values: Vec<Vec<f32>>,
    /// The gradient's global norm, and the factor that clips it.
    pub(crate) norm: f64,
    pub(crate) clip: f32,
    /// The state after the step, if it is computed beside the held one.
    pub(crate) next: Option<NextState>,
}

/// A gradient on its way.
pub(crate) struct Landing<'a> {
    plan: LandingPlan,
    parts: &'a GradientBuckets,
    gradients: Vec<f32>,
    values: Vec<f32>,
    norm: NormParts,
    /// Parts that wait for the value by which they are divided.
    waiting: Vec<usize>,
    beside: Option<(Beside<'a>, PlacedTensors)>,
    /// Parts whose update is made.
    updated: Arc<AtomicUsize>,
    watch: Stopwatch,
}

impl<'a> Landing<'a> {
    /// Into `buffer`, whatever it holds; `beside`: where the state after the step is computed, if it is.
    pub(crate) fn new(
        plan: LandingPlan,
        parts: &'a GradientBuckets,
        mut buffer: Vec<f32>,
        beside: Option<Beside<'a>>,
        watch: Stopwatch,
    ) -> Self {
        buffer.resize(parts.len(), 0.0);
        let beside = beside.map(|mut beside| {
            beside.buffers.resize(parts.len());
            (beside, PlacedTensors::default())
        });
        Self {
            plan,
            parts,
            gradients: buffer,
            values: Vec::new(),
            norm: NormParts::new(parts.len()),
            waiting: Vec::new(),
            beside,
            updated: Arc::default(),
            watch,
        }
    }

    /// How many parts' updates are made.
    pub(crate) fn updated(&self) -> Arc<AtomicUsize> {
        self.updated.clone()
    }

    /// Takes up a sum over all slots.
    pub(crate) fn land(&mut self, item: Item, sum: Vec<f32>) -> Result<()> {
        match item {
            Item::Values => {
                self.values = sum;
                std::mem::take(&mut self.waiting).into_iter().try_for_each(|part| self.settle(part))
            }
            Item::Part(part) => {
                self.parts.buckets()[part].copy_into(&sum, &mut self.gradients);
                self.watch.bytes.within_host += bytes_of(&sum);
                match self.plan.divisor.is_some() && self.values.is_empty() {
                    true => {
                        self.waiting.push(part);
                        Ok(())
                    }
                    false => self.settle(part),
                }
            }
        }
    }

    /// What can be done with a part whose sum is there.
    fn settle(&mut self, part: usize) -> Result<()> {
        let ranges = &self.parts.buckets()[part].ranges;
        let Self { plan, gradients, values, norm, watch, .. } = self;
        watch.time(
            |times| &mut times.optimizer,
            || {
                if let Some(divisor) = plan.divisor.and_then(|at| values.get(at)) {
                    let divisor = divisor.max(1.0);
                    for range in ranges {
                        divide(&mut gradients[range.clone()], divisor);
                    }
                }
                norm.add(gradients, ranges);
            },
        );
        // Whether the gradient is clipped is known when all of it is there.
        if self.plan.clip_norm > 0.0 { Ok(()) } else { self.update(part, 1.0) }
    }

    /// Computes a part's state after the step and sends its parameters to the device.
    fn update(&mut self, part: usize, factor: f32) -> Result<()> {
        let Self { plan, parts, gradients, beside, watch, .. } = self;
        let Some((beside, placed)) = beside else { return Ok(()) };
        let layout = parts.layout();
        let LandingPlan { adamw, update, learning_rate, bounded, .. } = plan;
        let step = AdamWStep { update: *update, learning_rate: *learning_rate, factor };
        let NextBuffers { parameters, moments } = &mut beside.buffers;
        for index in parts.tensors_of(part) {
            let tensor = &layout.tensors()[*index];
            watch.time(
                |times| &mut times.optimizer,
                || {
                    let held = (beside.parameters, beside.moments);
                    adamw.apply_beside(tensor, step, gradients, held, (parameters, moments));
                    if let Some((range, (low, high))) =
                        bounded.as_ref().filter(|(range, _)| *range == tensor.range())
                    {
                        parameters[range.clone()]
                            .iter_mut()
                            .for_each(|value| *value = value.clamp(*low, *high));
                    }
                },
            );
            let values = &parameters[tensor.range()];
            watch.bytes.copy_to_device(bytes_of(values));
            watch
                .time(|times| &mut times.to_device, || placed.send(layout, *index, values, &beside.device))?;
        }
        self.updated.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The whole, once every sum has been taken up.
    ///
    /// # Errors
    /// [`CollectiveError::Closed`] if one is missing: whoever was to give it has ended.
    pub(crate) fn finish(mut self, watch: &mut Stopwatch) -> Result<Landed> {
        if !self.norm.is_complete() || self.values.is_empty() {
            return Err(CollectiveError::Closed.into());
        }
        let (norm, limit) = (self.norm.norm(), self.plan.clip_norm);
        let clip = if limit > 0.0 { clip_factor(norm, limit) } else { 1.0 };
        // A gradient that is not finite leads nowhere.
        if limit > 0.0 && norm.is_finite() {
            (0..self.parts.buckets().len()).try_for_each(|part| self.update(part, clip))?;
        }
        watch.take_in(std::mem::take(&mut self.watch));
        let next = self.beside.map(|(beside, placed)| NextState { buffers: beside.buffers, placed });
        Ok(Landed {
            gradients: self.gradients,
            values: self.values,
            own_values: Vec::new(),
            norm,
            clip,
            next,
        })
    }
}

impl NextBuffers {
    fn resize(&mut self, len: usize) {
        for buffer in [&mut self.parameters, &mut self.moments.first, &mut self.moments.second] {
            buffer.resize(len, 0.0);
        }
    }
}

/// What is told where nothing more arrives and something is missing.
pub(crate) fn closed() -> WorkerError {
    CollectiveError::Closed.into()
}

#[cfg(test)]
mod tests {
    use blip2_tensors::train::optimizer::global_norm;

    use super::*;

    /// Three parts: a head with the temperature, a layer, and the inputs.
    fn parts() -> GradientBuckets {
        let shapes = [
            ("Qformer.bert.encoder.layer.0.weight", vec![30, 20]),
            ("query_tokens", vec![1, 3, 11]),
            ("temp", vec![1]),
        ];
        GradientBuckets::of(
            &FlatLayout::new(shapes.map(|(name, shape)| (name.to_owned(), shape)).to_vec()),
            1,
        )
    }

    fn plan(clip_norm: f64, divisor: Option<usize>) -> LandingPlan {
        LandingPlan {
            adamw: AdamW { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weight_decay: 0.05 },
            update: 3,
            learning_rate: 0.3,
            clip_norm,
            bounded: Some((633..634, (0.001, 0.5))),
            divisor,
        }
    }

    fn values(seed: f32) -> Vec<f32> {
        (0..634).map(|at| (at as f32 * 0.37 + seed).sin() * seed).collect()
    }

    fn held() -> (Vec<f32>, Moments) {
        let second = values(0.4).into_iter().map(f32::abs).collect();
        (values(0.9), Moments { first: values(0.2), second })
    }

    fn part(parts: &GradientBuckets, number: usize, of: &[f32]) -> Vec<f32> {
        parts.buckets()[number].ranges.iter().cloned().flat_map(|range| of[range].to_vec()).collect()
    }

    fn beside<'a>(parameters: &'a [f32], moments: &'a Moments) -> Option<Beside<'a>> {
        let buffers = NextBuffers { parameters: vec![f32::NAN; 3], ..NextBuffers::default() };
        Some(Beside { parameters, moments, buffers, device: Device::flex().autodiff() })
    }

    /// What one pass over everything makes of a state.
    fn whole(plan: &LandingPlan, parts: &GradientBuckets, gradients: &[f32]) -> (f64, Vec<f32>, Moments) {
        let (mut parameters, mut moments) = held();
        let mut gradients = gradients.to_vec();
        let norm = global_norm(&gradients);
        scale(&mut gradients, if plan.clip_norm > 0.0 { clip_factor(norm, plan.clip_norm) } else { 1.0 });
        let (adamw, layout) = (plan.adamw, parts.layout());
        adamw.apply(layout, plan.update, plan.learning_rate, &mut parameters, &gradients, &mut moments);
        parameters[633] = parameters[633].clamp(0.001, 0.5);
        (norm, parameters, moments)
    }

    #[test]
    fn parts_in_any_order_have_the_bits_of_the_whole() {
        let parts = parts();
        let (parameters, moments) = held();
        for (clip_norm, divisor) in [(0.0, None), (0.5, None), (0.0, Some(1)), (0.5, Some(1)), (1e9, Some(0))]
        {
            let plan = plan(clip_norm, divisor);
            let sums = [7.0, 3.0];
            let by = divisor.map_or(1.0, |at: usize| f32::max(sums[at], 1.0));
            let gradients = values(2.0);
            let divided: Vec<f32> = gradients.iter().map(|gradient| gradient / by).collect();
            let (norm, want, want_moments) = whole(&plan, &parts, &divided);
            for order in [[0, 1, 2], [2, 0, 1]] {
                for values_first in [true, false] {
                    let beside = beside(&parameters, &moments);
                    let watch = Stopwatch::default();
                    let mut landing = Landing::new(plan.clone(), &parts, vec![f32::NAN; 2], beside, watch);
                    let give_values = |landing: &mut Landing<'_>, now: bool| {
                        if now {
                            landing.land(Item::Values, sums.to_vec()).unwrap();
                        }
                    };
                    give_values(&mut landing, values_first);
                    for number in order {
                        landing.land(Item::Part(number), part(&parts, number, &gradients)).unwrap();
                    }
                    give_values(&mut landing, !values_first);
                    let landed = landing.finish(&mut Stopwatch::default()).unwrap();
                    assert_eq!(landed.norm.to_bits(), norm.to_bits());
                    assert!(landed.gradients == divided, "the gradient is kept as it is, not clipped");
                    let next = landed.next.unwrap().buffers;
                    assert!(
                        next.parameters == want && next.moments == want_moments,
                        "{clip_norm} {divisor:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_part_s_update_does_not_wait_for_the_next_part_unless_the_norm_decides() {
        let parts = parts();
        let (parameters, moments) = held();
        for (clip_norm, updates) in [(0.0, [1, 2, 3]), (1.0, [0, 0, 0])] {
            let beside = beside(&parameters, &moments);
            let mut landing =
                Landing::new(plan(clip_norm, None), &parts, Vec::new(), beside, Stopwatch::default());
            let updated = landing.updated();
            for (number, count) in updates.into_iter().enumerate() {
                landing.land(Item::Part(number), part(&parts, number, &values(2.0))).unwrap();
                assert_eq!(updated.load(Ordering::Acquire), count);
            }
            landing.land(Item::Values, vec![1.0]).unwrap();
            landing.finish(&mut Stopwatch::default()).unwrap();
            assert_eq!(updated.load(Ordering::Acquire), 3);
        }
    }

    #[test]
    fn a_gradient_with_a_part_missing_is_none() {
        let parts = parts();
        let mut landing = Landing::new(plan(0.0, None), &parts, Vec::new(), None, Stopwatch::default());
        landing.land(Item::Values, vec![1.0]).unwrap();
        landing.land(Item::Part(0), part(&parts, 0, &values(2.0))).unwrap();
        assert!(landing.finish(&mut Stopwatch::default()).is_err());
    }
}
