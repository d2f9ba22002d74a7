//! Retrieval: the losses of contrast, where rows of one image are each other's pairs and none of them the
//! other's negative, and where the image encoder is trained as well. The gradient is that of the global
//! batch's loss (`docs/step.md`).

mod encoder_step;
mod model;
mod settings;

pub use settings::RetrievalSettings;

use std::sync::Arc;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::loader::SlotBatch;
use blip2_dataset::text::TextEncoder;
use blip2_evaluation::held_out::{HeldOut, HeldOutRow};
use blip2_model::blip2::export::export_lavis;
use blip2_model::objectives::contrast::{Contrast, GlobalFeatures};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::WeightSource;
use burn::tensor::Device;

use self::model::{EncodedImages, RetrievalTask};
use super::contrast::gathered::Gathered;
use super::contrast::model::{ContrastTask, LOSSES, OpenSlot};
use super::contrast::{ContrastSettings, TEMPERATURE, computed};
use super::description::{LossName, Needs, Passes, Task, Unusable};
use super::export::{ExportTarget, Layout};
use super::image_encoder::{EncodedSlot, TaskEncoder};
use super::scores::{EvaluationSet, Measure, Scores};
use super::training::{Bounded, ModelShape, TaskModel, Trainable, TrainedTensors, WeightNames};
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenModels;
use crate::language::LanguageTexts;
use crate::open::qformer_text;
use crate::settings::encoder::EncoderTraining;
use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;
use crate::sum::context::{Computed, Step, StepSum, StepValues};
use crate::sum::times::Stopwatch;
use crate::sum::unit_buffers::UnitBuffers;

impl Task for RetrievalSettings {
    fn name(&self) -> &'static str {
        "retrieval"
    }

    fn title(&self) -> &'static str {
        "contrastive, matching and captioning losses by image ids"
    }

    fn losses(&self) -> &'static [LossName] {
        LOSSES
    }

    fn default_batch(&self) -> u32 {
        224
    }

    fn default_optimizer(&self) -> OptimizerSettings {
        OptimizerSettings::fine_tuning()
    }

    fn unusable(&self, batch: u32, model: &ModelSettings) -> Option<Unusable> {
        self.contrast().what_is_unusable(batch, model)
    }

    fn needs(&self) -> Needs {
        self.contrast().needs()
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

    fn columns(&self, all: &ColumnNames) -> ColumnNames {
        all.without_questions().with_image_ids()
    }

    fn trains_encoder(&self) -> bool {
        self.image_encoder == EncoderTraining::Trained
    }

    fn measure(&self) -> Measure {
        Measure::Retrieval
    }

    fn layouts(&self) -> &'static [Layout] {
        &[Layout::Retrieval, Layout::Lavis]
    }
}

impl Trainable for RetrievalSettings {
    fn language_texts<'a>(&'a self, _: u32, _: &'a str) -> Option<LanguageTexts<'a>> {
        None
    }

    fn encoder(&self, frozen: &FrozenModels, _: u32) -> Result<Arc<TextEncoder>> {
        Ok(qformer_text(&frozen.model, self.text_length)?.0)
    }

    fn model(&self, shape: &ModelShape<'_>, device: &Device) -> Result<Box<dyn TaskModel>> {
        let encoder = TaskEncoder::new(self.encoder_settings(), shape, device)?;
        Ok(Box::new(RetrievalTask { encoder, contrast: self.contrast().task(shape, device)? }))
    }

    fn weight_names(&self) -> WeightNames {
        ContrastSettings::default().weight_names()
    }
}

impl TaskModel for RetrievalTask {
    fn tensors(&mut self) -> &mut dyn TrainedTensors {
        self
    }

    fn initialise(
        &mut self,
        seed: u64,
        bert: Option<&WeightSource>,
        device: &Device,
    ) -> Result<(), ModelError> {
        self.encoder.initialise(device)?;
        self.contrast.initialise(seed, bert, device)
    }

    fn check_bert(&mut self, bert: &WeightSource) -> Result<(), ModelError> {
        self.contrast.check_bert(bert)
    }

    fn bounded(&self) -> Option<Bounded> {
        self.contrast.bounded()
    }

    fn learning_rate_scale(&self, tensor: &str) -> f64 {
        self.encoder.learning_rate_scale(tensor)
    }

    fn divisor(&self) -> Option<usize> {
        self.contrast.divisor()
    }

    fn gradient(&mut self, step: &Step<'_>, sum: StepSum<'_>, watch: &mut Stopwatch) -> Result<Computed> {
        let temperature = step.parameter(TEMPERATURE)?;
        let mut kept = 0;
        let encode = |slot, watch: &mut Stopwatch| self.encode(step, slot, &mut kept, watch);
        let (slots, Gathered { global, image_ids }) = self.contrast.encode_and_gather(step, watch, encode)?;
        let (slots, images): (Vec<OpenSlot<'_>>, Vec<Option<EncodedImages>>) = slots.into_iter().unzip();
        let features = self.contrast.to_device(step, &global, watch)?;
        let contrast = self.contrast_of_images(&features, &image_ids, temperature, watch)?;
        let negatives =
            watch.time(|times| &mut times.forward, || self.contrast.draw_negatives(step, &contrast))?;
        let landed = ContrastTask::row_loans(step, &slots, &negatives).during(watch, |rows, watch| {
            sum.of_slots(step, watch, |sums, watch| {
                let mut open = Vec::new();
                for ((slot, images), texts) in slots.into_iter().zip(images).zip(&negatives.texts) {
                    let (all, rows) = ((&global, &features, &contrast), rows.of_next_slot(watch)?);
                    open.extend(self.backward(step, (slot, images), all, (texts, rows), sums, watch)?);
                }
                let homeward = contrast.has_negatives().then_some(&negatives.images[..]);
                self.backward_through_encoder(step, open, homeward, sums, watch)
            })
        })?;
        computed(step, (&global, &contrast, temperature), landed)
    }

    fn warm_up(&self, frozen: &FrozenModels, rows: usize) -> Result<()> {
        self.contrast.warm_up_with(self.encoder.features_of_nothing(frozen, rows)?)
    }

    fn held_out_unit(&self, frozen: &FrozenModels, unit: usize, rows: &[HeldOutRow]) -> Result<Vec<u8>> {
        let pixels = HeldOutRow::pixels_of(rows).into();
        let features = self.encoder.features_of(frozen, pixels, rows.len())?;
        self.contrast.unit(frozen, unit, rows, features)
    }

    fn held_out_values(
        &self,
        frozen: &FrozenModels,
        held_out: &HeldOut,
        told: &mut UnitBuffers<'_>,
    ) -> Result<StepValues> {
        self.contrast.values(frozen, held_out, told)
    }

    fn scores(&self, set: &EvaluationSet<'_>) -> Result<Scores> {
        let own = self.encoder.of_samples(set.images)?;
        self.contrast.scores_of(set, own.as_ref().unwrap_or(set.images))
    }

    fn export(&mut self, layout: Layout, mut target: ExportTarget<'_>) -> Result<()> {
        if layout == Layout::Lavis {
            return Ok(export_lavis(target.out, self, None, target.options.precision)?);
        }
        target.encoder = self.encoder.or(target.encoder)?;
        self.contrast.export_folder(target)
    }
}

impl RetrievalTask {
    /// The passes of a slot that need no other slot: image encoder, queries, texts; and what is kept of the
    /// first to be differentiated.
    fn encode<'a>(
        &self,
        step: &Step<'_>,
        slot: &'a SlotBatch,
        kept: &mut usize,
        watch: &mut Stopwatch,
    ) -> Result<(OpenSlot<'a>, Option<EncodedImages>)> {
        if slot.image_ids.len() != slot.samples.len() {
            return Err(WorkerError::Protocol(format!("slot {} has no ids of its images", slot.slot)));
        }
        let EncodedSlot { features, pass } = self.encoder.encode(step, slot, kept, watch)?;
        let images = self.encoder.trained().map(|_| EncodedImages::new(&features, pass));
        let read = images.as_ref().map_or(&features, |images| &images.leaf).clone();
        let forward = self.contrast.forward(step, slot, read, watch)?;
        Ok((OpenSlot { batch: slot, features, forward, image_ids: slot.image_ids.clone() }, images))
    }

    /// The contrastive loss of the global batch, whose rows have images of these ids.
    fn contrast_of_images(
        &self,
        features: &GlobalFeatures,
        ids: &[u64],
        temperature: f32,
        watch: &mut Stopwatch,
    ) -> Result<Contrast> {
        let smoothing = self.contrast.settings.label_smoothing;
        let contrast = || features.contrast_of_images(ids, temperature, smoothing);
        Ok(watch.time(|times| &mut times.forward, contrast)?)
    }
}
