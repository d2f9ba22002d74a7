//! Contrast: the Q-Former learns which text belongs to which image (contrastive and matching losses) and to
//! write it (captioning loss). The gradient is that of the global batch's loss (`docs/step.md`).

pub(super) mod gathered;
mod held_out;
pub(super) mod model;
pub(super) mod negatives;
mod settings;

pub use settings::ContrastSettings;

use std::sync::Arc;

use blip2_dataset::loader::SlotBatch;
use blip2_dataset::text::TextEncoder;
use blip2_evaluation::held_out::{HeldOut, HeldOutRow};
use blip2_evaluation::retrieval;
use blip2_evaluation::sample_encoder::SampleEncoder;
use blip2_model::blip2::export::{NOT_IN_RETRIEVAL, Retriever, export_lavis, export_retrieval};
use blip2_model::objectives::contrast::{
    self, Contrast, ContrastModel, GlobalBatch, GlobalFeatures, SlotContext, SlotForward,
};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::tensors::compute_in;
use blip2_tensors::train::loss::LossValue;
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Tensor};

use self::gathered::Gathered;
use self::model::{ContrastTask, LOSSES, OpenSlot};
use super::description::{LossName, Needs, Passes, Task, Unusable};
use super::export::{ExportTarget, Layout};
use super::scores::{EvaluationSet, Measure, Scores};
use super::training::{Bounded, ModelShape, TaskModel, Trainable, TrainedTensors, WeightNames};
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenModels;
use crate::language::LanguageTexts;
use crate::open::{SeededValues, qformer_text};
use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;
use crate::sum::context::{Computed, Step, StepSum, StepValues, first_row};
use crate::sum::landing::Landed;
use crate::sum::odd_slots::{odd_slots, slots_of};
use crate::sum::slots::Slots;
use crate::sum::times::Stopwatch;
use crate::sum::traffic::bytes_of;
use crate::sum::unit_buffers::UnitBuffers;

/// The divisor of the similarities.
pub(super) const TEMPERATURE: &str = "temp";
/// Bounds of the temperature where `clamp_temperature` is set (BLIP's).
const TEMPERATURE_BOUNDS: (f32, f32) = (0.001, 0.5);

/// Keys of draws. They say what the task was once called: another text would draw otherwise.
const FEATURE_DROPOUT: &str = "dropout of stage 1's features";
const LOSS_DROPOUT: &str = "dropout of stage 1's losses";

impl Task for ContrastSettings {
    fn name(&self) -> &'static str {
        "contrast"
    }

    fn title(&self) -> &'static str {
        "contrastive, matching and captioning losses"
    }

    fn losses(&self) -> &'static [LossName] {
        LOSSES
    }

    fn default_batch(&self) -> u32 {
        1680
    }

    fn default_optimizer(&self) -> OptimizerSettings {
        OptimizerSettings::default()
    }

    fn unusable(&self, batch: u32, model: &ModelSettings) -> Option<Unusable> {
        self.what_is_unusable(batch, model)
    }

    fn needs(&self) -> Needs {
        Needs { bert: true, qformer_tokenizer: true, language_model: false }
    }

    fn text_length(&self) -> usize {
        self.text_length
    }

    fn passes(&self) -> Passes {
        Passes::Contrast { text: self.text_length }
    }

    fn contrasts(&self) -> bool {
        true
    }

    fn measure(&self) -> Measure {
        Measure::Retrieval
    }

    fn layouts(&self) -> &'static [Layout] {
        &[Layout::Retrieval, Layout::Lavis]
    }
}

impl Trainable for ContrastSettings {
    fn language_texts<'a>(&'a self, _: u32, _: &'a str) -> Option<LanguageTexts<'a>> {
        None
    }

    fn encoder(&self, frozen: &FrozenModels, _: u32) -> Result<Arc<TextEncoder>> {
        Ok(qformer_text(&frozen.model, self.text_length)?.0)
    }

    fn model(&self, shape: &ModelShape<'_>, device: &Device) -> Result<Box<dyn TaskModel>> {
        Ok(Box::new(self.task(shape, device)?))
    }

    fn weight_names(&self) -> WeightNames {
        WeightNames {
            mark: "vision_proj.weight",
            not_published: NOT_IN_RETRIEVAL,
            unused: &[],
            own: &[],
            init_is_whole: true,
        }
    }
}

impl ContrastSettings {
    /// The task with a model of zeros.
    pub(super) fn task(&self, shape: &ModelShape<'_>, device: &Device) -> Result<ContrastTask> {
        let settings = shape.model;
        let qformer = settings.qformer_config(shape.sizes.image_width, shape.sizes.vocab);
        let embed_dim = settings.qformer.embed_dim;
        let model = ContrastModel::new(&qformer, embed_dim, settings.ln_vision_eps, device);
        let mut model = model.map_err(WorkerError::of_qformer_sizes)?;
        compute_in(&mut model, shape.train.compute)?;
        let (settings, queries) = (self.clone(), settings.qformer.queries);
        let (seed, mode) = (shape.train.seed, shape.train.gradients);
        Ok(ContrastTask { settings, stage: shape.stage, seed, mode, queries, embed_dim, model })
    }
}

impl TaskModel for ContrastTask {
    fn tensors(&mut self) -> &mut dyn TrainedTensors {
        &mut self.model
    }

    fn initialise(
        &mut self,
        seed: u64,
        bert: Option<&WeightSource>,
        device: &Device,
    ) -> Result<(), ModelError> {
        self.model.initialise(self.settings.temperature, &mut SeededValues::new(seed), bert, device)
    }

    fn check_bert(&mut self, bert: &WeightSource) -> Result<(), ModelError> {
        self.model.check_beginning(bert)
    }

    fn bounded(&self) -> Option<Bounded> {
        let bounded = Bounded { tensor: TEMPERATURE, bounds: TEMPERATURE_BOUNDS };
        self.settings.clamp_temperature.then_some(bounded)
    }

    fn divisor(&self) -> Option<usize> {
        None
    }

    fn gradient(&mut self, step: &Step<'_>, sum: StepSum<'_>, watch: &mut Stopwatch) -> Result<Computed> {
        let temperature = step.parameter(TEMPERATURE)?;
        let encode = |slot, watch: &mut Stopwatch| Ok((self.encode_slot(step, slot, watch)?, ()));
        let (slots, Gathered { global, .. }) = self.encode_and_gather(step, watch, encode)?;
        let slots: Vec<OpenSlot<'_>> = slots.into_iter().map(|(slot, ())| slot).collect();
        let features = self.to_device(step, &global, watch)?;
        let contrast = self.contrast(&features, temperature, watch)?;
        let negatives = watch.time(|times| &mut times.forward, || self.draw_negatives(step, &contrast))?;
        let landed = Self::row_loans(step, &slots, &negatives).during(watch, |rows, watch| {
            sum.of_slots(step, watch, |sums, watch| {
                slots.into_iter().zip(&negatives.texts).try_for_each(|(slot, texts)| {
                    let images = rows.of_next_slot(watch)?;
                    let all = (&global, &features, &contrast);
                    let (tape, objective) = self.slot_loss(step, slot, all, (texts, images), sums, watch)?;
                    sums.backward(&mut self.model, tape, objective, watch)
                })
            })
        })?;
        computed(step, (&global, &contrast, temperature), landed)
    }

    fn warm_up(&self, frozen: &FrozenModels, rows: usize) -> Result<()> {
        self.warm_up_with(frozen.images_of(self.stage).features_of_nothing(rows)?)
    }

    fn held_out_unit(&self, frozen: &FrozenModels, unit: usize, rows: &[HeldOutRow]) -> Result<Vec<u8>> {
        let pixels = HeldOutRow::pixels_of(rows).into();
        let features = frozen.images_of(self.stage).features_of(pixels, rows.len())?;
        self.unit(frozen, unit, rows, features)
    }

    fn held_out_values(
        &self,
        frozen: &FrozenModels,
        held_out: &HeldOut,
        told: &mut UnitBuffers<'_>,
    ) -> Result<StepValues> {
        self.values(frozen, held_out, told)
    }

    fn scores(&self, set: &EvaluationSet<'_>) -> Result<Scores> {
        self.scores_of(set, set.images)
    }

    fn export(&mut self, layout: Layout, target: ExportTarget<'_>) -> Result<()> {
        if layout == Layout::Lavis {
            return Ok(export_lavis(target.out, &mut self.model, None, target.options.precision)?);
        }
        self.export_folder(target)
    }
}

impl ContrastTask {
    /// Retrieval in `set`, whose images `encoder` looks at.
    pub(super) fn scores_of(&self, set: &EvaluationSet<'_>, encoder: &SampleEncoder) -> Result<Scores> {
        let (texts, _) = qformer_text(set.model, self.settings.text_length)?;
        let found = retrieval::by_contrast(encoder, &self.model, &texts, set.samples)?;
        Ok(Scores::Retrieval(found))
    }

    /// Writes the folder of a retriever that looks through the target's image encoder.
    pub(super) fn export_folder(&mut self, mut target: ExportTarget<'_>) -> Result<()> {
        let qformer = target.qformer();
        let processor = target.processor()?;
        let retriever = Retriever {
            encoder: &mut target.encoder,
            contrast: &mut self.model,
            qformer: &qformer,
            processor: &processor,
        };
        let tokenizer = target.model.qformer_tokenizer.as_ref();
        Ok(export_retrieval(target.out, retriever, tokenizer, target.options)?)
    }

    /// Passes texts of nothing forward with images of these features, and a gradient back.
    pub(super) fn warm_up_with(&self, image_features: Tensor<3>) -> Result<()> {
        let (rows, text_length) = (image_features.dims()[0], self.settings.text_length);
        let batch = contrast::SlotBatch {
            image_features,
            ids: vec![0; rows * text_length],
            mask: vec![1; rows * text_length],
            text_length,
        };
        let forward = self.model.features(batch, &mut Dropout::off(), Tape::whole())?;
        (forward.image_feats.sum() + forward.text_feat.sum()).backward();
        Ok(())
    }

    /// The passes of a slot that need no other slot: frozen encoder, queries, texts.
    fn encode_slot<'a>(
        &self,
        step: &Step<'_>,
        slot: &'a SlotBatch,
        watch: &mut Stopwatch,
    ) -> Result<OpenSlot<'a>> {
        watch.bytes.to_device += slot.pixels.len() as u64;
        let images = step.frozen.images_of(self.stage);
        let features = watch.time(|times| &mut times.encoder, || images.features(slot))?;
        let forward = self.forward(step, slot, features.clone(), watch)?;
        Ok(OpenSlot { batch: slot, features, forward, image_ids: Vec::new() })
    }

    /// A slot's passes over queries and texts, of its images' features.
    pub(super) fn forward(
        &self,
        step: &Step<'_>,
        slot: &SlotBatch,
        image_features: Tensor<3>,
        watch: &mut Stopwatch,
    ) -> Result<SlotForward> {
        let batch = contrast::SlotBatch {
            image_features,
            ids: slot.ids.clone(),
            mask: slot.mask.clone(),
            text_length: self.settings.text_length,
        };
        let mut dropout = step.dropout(FEATURE_DROPOUT, slot);
        Ok(watch.time(
            |times| &mut times.forward,
            || self.model.features(batch, &mut dropout, Tape::segmented()),
        )?)
    }

    /// The global batch's features, once for all slots.
    pub(super) fn to_device(
        &self,
        step: &Step<'_>,
        global: &GlobalBatch,
        watch: &mut Stopwatch,
    ) -> Result<GlobalFeatures> {
        watch.bytes.copy_to_device(bytes_of(&global.image_feats) + bytes_of(&global.text_feats));
        Ok(watch.time(|times| &mut times.forward, || global.features(&step.frozen.device))?)
    }

    /// The contrastive loss of the global batch.
    fn contrast(
        &self,
        features: &GlobalFeatures,
        temperature: f32,
        watch: &mut Stopwatch,
    ) -> Result<Contrast> {
        let smoothing = self.settings.label_smoothing;
        Ok(watch.time(|times| &mut times.forward, || features.contrast(temperature, smoothing))?)
    }

    /// A slot's losses with its negatives: the tape and the number to differentiate; their values are given
    /// away.
    pub(super) fn slot_loss(
        &self,
        step: &Step<'_>,
        slot: OpenSlot<'_>,
        (global, features, contrast): (&GlobalBatch, &GlobalFeatures, &Contrast),
        (negative_texts, negative_images): (&[usize], Tensor<3>),
        sums: &mut Slots<'_>,
        watch: &mut Stopwatch,
    ) -> Result<(Tape, Tensor<1>)> {
        let context = SlotContext {
            global,
            features,
            contrast,
            first_row: first_row(slot.batch),
            negative_images,
            negative_texts,
            mode: self.mode.into(),
            smoothing: self.settings.label_smoothing,
            decoder_start: step.frozen.decoder_start,
        };
        let mut dropout = step.dropout(LOSS_DROPOUT, slot.batch);
        let loss = watch.time(
            |times| &mut times.forward,
            || self.model.slot_loss(slot.forward, &context, &mut dropout),
        )?;
        let values = [loss.matching, loss.captioning];
        sums.push_values(move || Ok(LossValue::read_all(values)?.map(|loss| loss as f32).to_vec()))?;
        Ok((loss.tape, loss.objective))
    }
}

/// What a step comes to: its losses, from the contrast and what its slots gave.
pub(super) fn computed(
    step: &Step<'_>,
    (global, contrast, temperature): (&GlobalBatch, &Contrast, f32),
    landed: Landed,
) -> Result<Computed> {
    let [matching, captioning] = landed.values[..] else {
        return Err(WorkerError::Protocol("the summed losses have another length".into()));
    };
    let (contrastive, matching, captioning) = (contrast.loss, f64::from(matching), f64::from(captioning));
    let losses = vec![contrastive + matching + captioning, contrastive, matching, captioning];
    let odd_slots = match losses[1..].iter().all(|loss| loss.is_finite()) {
        true => Vec::new(),
        false => blamed(step, global, &landed.own_values),
    };
    let others = vec![("temperature", f64::from(temperature))];
    Ok(Computed { landed, losses, others, odd_slots })
}

/// Own slots to blame for a loss that is not finite: a row whose features are not finite spoils the losses of
/// others.
fn blamed(step: &Step<'_>, global: &GlobalBatch, own_values: &[Vec<f32>]) -> Vec<u32> {
    let odd_rows = global.odd_rows();
    if odd_rows.is_empty() {
        return odd_slots(step.batch, own_values);
    }
    slots_of(step.batch, |index| {
        let slot = &step.batch.slots[index];
        let (first, rows) = (first_row(slot), slot.samples.len());
        odd_rows.iter().any(|row| (first..first + rows).contains(row))
    })
}
