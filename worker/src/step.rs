//! One step: from a batch of the own slots to the gradient of the global-batch loss, and its application.

pub(crate) mod feature_rows;
mod held_out;
pub(crate) mod landing;
pub(crate) mod non_finite;
mod pixels;
pub(crate) mod reduction;
pub(crate) mod times;

pub use non_finite::NonFinite;
pub use times::StepTimes;

use std::sync::Arc;
use std::time::Duration;

use blip2_collective::{Exchange, SumTree, World};
use blip2_dataset::loader::{SlotBatch, StepBatch};
use blip2_evaluation::image_transform::statistics;
use blip2_model::device::placement::Placement;
use blip2_model::files::image_processor::ImageProcessor;
use blip2_model::files::tokenizer::DECODER_START;
use blip2_model::nn::dropout::Dropout;
use blip2_model::train::buckets::GradientBuckets;
use blip2_model::train::flat::FlatLayout;
use blip2_model::train::optimizer::{Moments, scale};
use blip2_model::vision::ImageEncoder;
use blip2_proto::drill::{Drill, DrillPhase};
use burn::tensor::{Device, Tensor};

use crate::config::{OptimizerSettings, WorkerConfig};
use crate::error::{Result, WorkerError};
use crate::image_processor::image_processor;
use crate::language::Language;
use crate::open::{compute, device, image_encoder, placement, qformer_text, qformer_tokenizer};
use crate::state::{FrozenSizes, NextState, TrainState};
use landing::{Beside, Landed, Landing, LandingPlan};
use non_finite::Planned;
use pixels::normalised_pixels;
use reduction::SumPlan;
use times::Stopwatch;

/// Bounds of the temperature where `stage1.clamp_temperature` is set (BLIP's).
const TEMPERATURE_BOUNDS: (f32, f32) = (0.001, 0.5);

/// What stays the same over the steps of a run.
pub struct FrozenModels {
    /// The training configuration.
    pub config: Arc<WorkerConfig>,
    /// Sizes that come from the frozen parts.
    pub sizes: FrozenSizes,
    /// Device without autodiff.
    pub device: Device,
    /// Frozen.
    pub encoder: ImageEncoder,
    /// How its pictures are prepared.
    pub processor: ImageProcessor,
    /// Frozen; present when the run has a stage 2.
    pub language: Option<Language>,
    /// Id of `[DEC]`.
    pub decoder_start: i32,
    /// Where a rehearsal of faults makes a step wait.
    pub(crate) drill: Drill,
    /// Whether the device is waited for after each part of a step, so that [`StepTimes`] are true and the step slower.
    pub measured: bool,
}

/// The way to the other members during one membership epoch.
pub struct Peers<'a> {
    /// This member's end.
    pub exchange: &'a Exchange,
    /// Runs the exchange's I/O.
    pub runtime: &'a tokio::runtime::Handle,
    /// Who holds which slots.
    pub world: &'a World,
    /// Committed steps of the run, which names this step's messages.
    pub step: u64,
    /// How long a collective may take.
    pub deadline: Duration,
}

/// Losses of the global batch, by name.
pub(crate) type StepValues = Vec<(&'static str, f64)>;

/// What a stage's computation comes to.
pub(crate) struct Computed {
    /// The gradient of the global-batch loss, and what it leads to.
    pub(crate) landed: Landed,
    pub(crate) values: StepValues,
    /// Own slots to blame if a value is not finite.
    pub(crate) odd_slots: Vec<u32>,
}

/// The gradient of the global-batch loss, equal on every member.
pub struct StepGradient {
    /// In the state's layout, not clipped.
    pub gradients: Vec<f32>,
    /// Losses of the global batch, the gradient's global norm and the learning rate, by name.
    pub values: StepValues,
    /// Present when it is never applied: a step that is committed all the same leaves the state as it is.
    pub non_finite: Option<NonFinite>,
    /// Brings the gradient to `clip_norm`.
    clip: f32,
    /// The state that it leads to, where that is computed already.
    next: Option<NextState>,
    /// Where this member's time went.
    pub times: StepTimes,
}

/// What a panic says when an allocation finds no room on a card, and after a kernel's fault.
const CARD_IS_FULL: &str =
    "An IO error happened\nCaused by:\n  out of device memory allocating 1073741824 bytes\n";
const CARD_FAULTS: &str = "The device is poisoned\nCaused by:\n  cuEventSynchronize failed with status 700\n";

/// Which step of which stage is applied, and what its gradient is multiplied by.
#[derive(Debug, Clone, Copy)]
struct Update {
    stage: u32,
    step: u64,
    clip: f32,
}

impl FrozenModels {
    /// Loads the frozen parts that `config` names.
    pub fn load(config: Arc<WorkerConfig>) -> Result<Self> {
        let device = device(&config.train.device, config.train.tf32)?;
        let place = placement(&config.model, &device)?;
        Self::load_to(config, &place)
    }

    /// Loads them to a place.
    pub(crate) fn load_to(config: Arc<WorkerConfig>, place: &Placement) -> Result<Self> {
        let device = place.device.clone();
        let (compute, frozen) = (compute(&config.train, &device)?, place.matrices);
        tracing::info!(?compute, ?frozen, "numbers of the trained parts' products and of the frozen models");
        let encoder = image_encoder(&config.model, place)?;
        let processor = image_processor(&config.model, encoder.image_size())?;
        if let Some(id) = qformer_tokenizer(&config.model)?.added {
            let from = &config.model.qformer_tokenizer;
            tracing::info!(
                from,
                id,
                "the tokenizer has no {DECODER_START}: it is the token behind the last, as in LAVIS"
            );
        }
        let (text, decoder_start) = qformer_text(&config.model, config.stage1.text_length)?;
        let language = match config.stage2.steps {
            0 => None,
            _ => Some(Language::open(&config, place)?),
        };
        let language_width = language.as_ref().map_or(0, |language| language.model.width());
        let sizes = FrozenSizes { image_width: encoder.width(), vocab: text.vocab_size(), language_width };
        let (drill, measured) = (Drill::default(), false);
        Ok(Self { sizes, device, encoder, processor, language, decoder_start, config, drill, measured })
    }

    /// Parts that were made and not loaded; a caption starts with the Q-Former's last token.
    pub fn of(
        config: Arc<WorkerConfig>,
        sizes: FrozenSizes,
        device: Device,
        encoder: ImageEncoder,
        language: Option<Language>,
    ) -> Self {
        let processor = ImageProcessor::blip2(encoder.image_size());
        let decoder_start = sizes.vocab.saturating_sub(1) as i32;
        let (drill, measured) = (Drill::default(), false);
        Self { sizes, device, encoder, processor, language, decoder_start, config, drill, measured }
    }

    /// Computes the gradient of step `step` of the state's stage; changes nothing that a redone step would see.
    pub fn gradient(
        &self,
        state: &mut TrainState,
        members: &Peers<'_>,
        step: u64,
        batch: &StepBatch,
    ) -> Result<StepGradient> {
        state.check_finite()?;
        let mut watch = self.stopwatch();
        let Computed { landed, mut values, odd_slots } = match state.stage {
            1 => self.contrast_gradient(state, members, step, batch, &mut watch)?,
            _ => self.generate_gradient(state, members, step, batch, &mut watch)?,
        };
        let (settings, steps) = self.optimizer(state.stage);
        let Landed { gradients, norm, clip, next, .. } = landed;
        let learning_rate = settings.schedule(steps).learning_rate(step);
        let (adamw, gradients_of) = (settings.adamw(), &gradients[..]);
        let planned = Planned { adamw, update: step + 1, learning_rate, norm, clip, gradients: gradients_of };
        let term = non_finite::term(state, &values, &planned);
        let non_finite = term.map(|term| NonFinite { term, slots: odd_slots });
        values.extend([("gradient_norm", norm), ("learning_rate", learning_rate)]);
        let StepTimes { encoder, forward, backward, exchange, .. } = watch.times;
        tracing::debug!(
            step = members.step,
            encoder,
            forward,
            backward,
            exchange,
            "gradient computed, in seconds"
        );
        Ok(StepGradient { gradients, values, non_finite, clip, next, times: watch.times })
    }

    fn stopwatch(&self) -> Stopwatch {
        Stopwatch::new(self.measured.then(|| self.device.clone()))
    }

    /// Waits here if a rehearsal asks for it.
    pub(crate) fn rehearse(&self, phase: DrillPhase, step: u64) {
        if let Some(wait) = self.drill.reached(phase, step) {
            std::thread::sleep(wait);
        }
    }

    /// Panics as burn does when a card fails, if a rehearsal asks for it.
    pub(crate) fn rehearse_failures(&self, step: u64) {
        for (phase, text) in [(DrillPhase::CardMemory, CARD_IS_FULL), (DrillPhase::CardFault, CARD_FAULTS)] {
            if let Some(wait) = self.drill.reached(phase, step) {
                std::thread::sleep(wait);
                panic!("{text}");
            }
        }
    }

    /// How the gradients of the slots of `batch` are summed with those of all members.
    pub(crate) fn sum_plan<'a>(&self, parts: &'a GradientBuckets, batch: &StepBatch) -> Result<SumPlan<'a>> {
        let train = &self.config.train;
        let first = batch.slots.first().map_or(0, |slot| slot.slot);
        Ok(SumPlan {
            parts,
            tree: SumTree::new(train.slots)?.on_wire(train.wire),
            slots: first..first + batch.slots.len() as u32,
            overlap: self.overlaps(),
            device: self.device.clone(),
        })
    }

    /// Whether parts of a step run beside each other.
    fn overlaps(&self) -> bool {
        self.config.train.overlap && !self.measured
    }

    /// Where the gradient of step `step` of a stage lands, which is divided by the value `divisor` where there is one.
    pub(crate) fn landing<'a>(
        &self,
        (stage, step): (u32, u64),
        parts: &'a GradientBuckets,
        buffer: Vec<f32>,
        beside: Beside<'a>,
        divisor: Option<usize>,
    ) -> Landing<'a> {
        let (settings, steps) = self.optimizer(stage);
        let plan = LandingPlan {
            adamw: settings.adamw(),
            update: step + 1,
            learning_rate: settings.schedule(steps).learning_rate(step),
            clip_norm: settings.clip_norm,
            bounded: self.bounded(parts.layout()),
            divisor,
        };
        Landing::new(plan, parts, buffer, self.overlaps().then_some(beside), self.stopwatch())
    }

    /// The temperature's place and bounds, where it is kept in bounds.
    fn bounded(&self, layout: &FlatLayout) -> Option<(std::ops::Range<usize>, (f32, f32))> {
        let temp = layout.get("temp").filter(|_| self.config.stage1.clamp_temperature)?;
        Some((temp.range(), TEMPERATURE_BOUNDS))
    }

    /// Applies a committed step: clipping, AdamW, temperature bounds; nothing of it where the step is not finite. `step`
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
        let TrainState { layout, stage, parameters, moments, .. } = state;
        let update = Update { stage: *stage, step, clip: gradient.clip };
        let mut watch = self.stopwatch();
        let gradients = &mut gradient.gradients;
        watch.time(
            |times| &mut times.optimizer,
            || self.update(layout, update, parameters, moments, gradients),
        );
        state.spare = std::mem::take(&mut gradient.gradients);
        let device = self.device.clone().autodiff();
        let written = watch.time(|times| &mut times.to_device, || state.write_model(&device));
        gradient.times += watch.times;
        written
    }

    /// The step itself on the host's buffers, which all follow `layout`.
    fn update(
        &self,
        layout: &FlatLayout,
        Update { stage, step, clip }: Update,
        parameters: &mut [f32],
        moments: &mut Moments,
        gradients: &mut [f32],
    ) {
        let (settings, steps) = self.optimizer(stage);
        scale(gradients, clip);
        let learning_rate = settings.schedule(steps).learning_rate(step);
        settings.adamw().apply(layout, step + 1, learning_rate, parameters, gradients, moments);
        if let Some((temp, (low, high))) = self.bounded(layout) {
            parameters[temp].iter_mut().for_each(|t| *t = t.clamp(low, high));
        }
    }

    /// The optimizer of a stage, and the stage's steps.
    fn optimizer(&self, stage: u32) -> (&OptimizerSettings, u64) {
        match stage {
            1 => (&self.config.stage1.optimizer, self.config.stage1.steps),
            _ => (&self.config.stage2.optimizer, self.config.stage2.steps),
        }
    }

    /// The frozen encoder's features of a slot, `[b, P, Dv]`.
    pub(crate) fn image_features(&self, slot: &SlotBatch) -> Result<Tensor<3>> {
        let size = self.encoder.image_size();
        let rows = slot.samples.len();
        if slot.pixels.len() != rows * 3 * size * size {
            return Err(WorkerError::Protocol(format!(
                "slot {}: {} pixel values for {rows} pictures of {size}×{size}",
                slot.slot,
                slot.pixels.len()
            )));
        }
        let statistics = statistics(&self.processor);
        let pixels = normalised_pixels(slot.pixels.clone(), [rows, size], statistics, &self.device);
        Ok(self.encoder.forward(pixels)?)
    }

    /// The dropout masks of one slot in the part of a step that `purpose` names.
    pub(crate) fn dropout(&self, purpose: &str, step: u64, slot: u32) -> Dropout {
        self.dropout_of(self.config.model.qformer.dropout, purpose, step, slot)
    }

    pub(crate) fn dropout_of(&self, probability: f64, purpose: &str, step: u64, slot: u32) -> Dropout {
        if probability <= 0.0 {
            return Dropout::off();
        }
        let parts = [step, u64::from(slot)];
        let key = blip2_dataset::random::KeyedRng::new(self.config.train.seed, purpose, &parts).next_u64();
        Dropout::keyed(probability, key as u32)
    }
}

impl Peers<'_> {
    /// This member's buffer given to all; the buffers of all, in slot order.
    pub(crate) fn all_gather(&self, tag: &str, own: bytes::Bytes) -> Result<Vec<bytes::Bytes>> {
        Ok(self.runtime.block_on(self.exchange.all_gather(self.step, tag, own, self.deadline))?)
    }
}
