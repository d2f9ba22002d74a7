//! One step: from a batch of the own slots to the gradient of the global-batch loss, and its application.
//!
//! What a step computes is its stage's task ([`crate::task`]); here is what all tasks share.

mod gradient;
mod held_out;
mod non_finite;

pub use crate::sum::context::StepValues;
pub use crate::sum::peers::Peers;
pub use crate::sum::times::{StepTimes, TimedPart};
pub use crate::sum::traffic::StepBytes;
pub use gradient::StepGradient;
pub use non_finite::NonFinite;

use blip2_collective::SumTree;
use blip2_dataset::loader::StepBatch;
use blip2_tensors::train::buckets::GradientBuckets;

use crate::error::Result;
use crate::frozen_models::FrozenModels;
use crate::state::TrainState;
use crate::sum::context::{Computed, Step, StepSum};
use crate::sum::landing::{Beside, Landed, Landing, LandingPlan};
use crate::sum::own_sums::SumPlan;
use crate::sum::times::{COMPUTE, LAND, Stopwatch};
use crate::sum::traffic::bytes_of;
use non_finite::Planned;

impl FrozenModels {
    /// Computes the gradient of step `step` of the state's stage; changes nothing that a redone step would
    /// see.
    pub fn gradient(
        &self,
        state: &mut TrainState,
        peers: &Peers<'_>,
        step: u64,
        batch: &StepBatch,
    ) -> Result<StepGradient> {
        state.check_finite()?;
        let mut watch = self.stopwatch();
        let landing_plan = state.landing_plan(step);
        let LandingPlan { adamw, update, learning_rate, .. } = landing_plan;
        let (buffer, buffers) = (std::mem::take(&mut state.spare), std::mem::take(&mut state.spare_next));
        let TrainState { task, layout, buckets, parameters, moments, stage, .. } = &mut *state;
        let parameters = &parameters[..];
        let beside = Beside { parameters, moments, buffers, device: self.device.clone().autodiff() };
        let beside = self.overlaps().then_some(beside);
        let lane = if self.overlaps() { LAND } else { COMPUTE };
        let landing = Landing::new(landing_plan, buckets, buffer, beside, watch.another(lane));
        let sum = StepSum { plan: self.sum_plan(buckets, batch)?, landing };
        let step_of = Step {
            frozen: self,
            peers,
            number: step,
            batch,
            batch_rows: stage.settings.batch as usize,
            parameters: (&*layout, parameters),
        };
        let sent = peers.sent();
        let Computed { landed, losses, others, odd_slots } = task.gradient(&step_of, sum, &mut watch)?;
        // Features and rows are counted as they go; sums go beside them.
        watch.bytes.sent_sums = peers.sent() - sent - watch.bytes.sent();
        let names = stage.settings.task.losses().iter().map(|loss| loss.name);
        let mut values: StepValues = names.zip(losses).chain(others).collect();
        let Landed { gradients, norm, clip, next, .. } = landed;
        let planned = Planned { adamw, update, learning_rate, norm, clip, gradients: &gradients[..] };
        let term = non_finite::term(state, &values, &planned);
        let non_finite = term.map(|term| NonFinite { term, slots: odd_slots });
        values.extend([("gradient_norm", norm), ("learning_rate", learning_rate)]);
        let StepTimes { encoder, forward, backward, exchange, .. } = watch.times;
        tracing::debug!(
            step = peers.step,
            encoder,
            forward,
            backward,
            exchange,
            "gradient computed, in seconds"
        );
        let Stopwatch { times, bytes, parts, .. } = watch;
        Ok(StepGradient { gradients, values, non_finite, clip, next, times, bytes, parts })
    }

    fn stopwatch(&self) -> Stopwatch {
        Stopwatch::new(self.measured.then(|| self.device.clone()))
    }

    /// How the gradients of the slots of `batch` are summed with those of all members.
    fn sum_plan<'a>(&self, parts: &'a GradientBuckets, batch: &StepBatch) -> Result<SumPlan<'a>> {
        let first = batch.slots.first().map_or(0, |slot| slot.slot);
        Ok(SumPlan {
            device: self.device.clone(),
            parts,
            tree: SumTree::new(self.train.slots)?.on_wire(self.train.wire),
            slots: first..first + batch.slots.len() as u32,
            overlap: self.overlaps(),
        })
    }

    /// Whether parts of a step run beside each other.
    pub(crate) fn overlaps(&self) -> bool {
        self.train.overlap && !self.measured
    }

    /// Applies a committed step: clipping, AdamW, bounds; nothing of it where the step is not finite. `step`
    /// counts within the stage; the gradient's buffer is the state's afterwards.
    pub fn apply(&self, state: &mut TrainState, step: u64, gradient: &mut StepGradient) -> Result<()> {
        if gradient.non_finite.is_some() {
            state.spare_next = gradient.next.take().map_or_else(Default::default, |next| next.buffers);
            state.spare = std::mem::take(&mut gradient.gradients);
            return Ok(());
        }
        if let Some(next) = gradient.next.take() {
            state.spare = std::mem::take(&mut gradient.gradients);
            return state.take_up(next);
        }
        let plan = state.landing_plan(step);
        let TrainState { layout, parameters, moments, .. } = state;
        let mut watch = self.stopwatch();
        let gradients = &mut gradient.gradients;
        watch.time(
            |times| &mut times.optimizer,
            || plan.update_whole(layout, gradient.clip, parameters, moments, gradients),
        );
        state.spare = std::mem::take(&mut gradient.gradients);
        let device = self.device.clone().autodiff();
        let written = watch.time(|times| &mut times.to_device, || state.write_model(&device));
        watch.bytes.copy_to_device(bytes_of(&state.parameters));
        gradient.times += watch.times;
        gradient.bytes += watch.bytes;
        gradient.parts.extend(watch.parts);
        written
    }
}

impl TrainState {
    /// What is made of the gradient of step `step` of the stage.
    fn landing_plan(&self, step: u64) -> LandingPlan {
        let (optimizer, steps) = (&self.stage.settings.optimizer, self.stage.settings.steps);
        let bounded = self.task.bounded();
        let place =
            bounded.and_then(|bounded| Some((self.layout.get(bounded.tensor)?.range(), bounded.bounds)));
        LandingPlan {
            adamw: optimizer.adamw(),
            update: step + 1,
            learning_rate: optimizer.schedule(steps).learning_rate(step),
            clip_norm: optimizer.clip_norm,
            bounded: place,
            divisor: self.task.divisor(),
        }
    }
}
