//! Generate: the Q-Former's queries are a soft prompt of the frozen language model, which writes the caption
//! behind it. The loss is the token mean of the global batch.

mod settings;

pub use settings::GenerateSettings;

use std::sync::Arc;

use blip2_dataset::loader::SlotBatch;
use blip2_dataset::text::TextEncoder;
use blip2_evaluation::caption_loss::{CaptionModel, SummedLoss, caption_losses};
use blip2_evaluation::captions::readable;
use blip2_evaluation::held_out::{HeldOut, HeldOutRow};
use blip2_model::blip2::export::{export_blip2, export_lavis};
use blip2_model::blip2::{Blip2, PromptTokens};
use blip2_model::language::LanguageModel;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{WeightSource, initialise};
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, compute_in};
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Tensor};

use super::adapters;
use super::description::{LossName, Needs, Passes, Task, Unusable, loss};
use super::export::{ExportTarget, Layout};
use super::image_encoder::TaskEncoder;
use super::language_step::{Draws, LanguageTraining, SlotLoss, SlotLosses, sum_of_slots};
use super::scores::{EvaluationSet, Measure, Scores};
use super::training::{ModelShape, TaskModel, Trainable, TrainedTensors, WeightNames};
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenModels;
use crate::language::{Language, LanguageTexts};
use crate::open::SeededValues;
use crate::settings::encoder::EncoderSettings;
use crate::settings::lora::LoraSettings;
use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;
use crate::sum::context::{Computed, Step, StepSum, StepValues};
use crate::sum::odd_slots::odd_slots;
use crate::sum::times::Stopwatch;
use crate::sum::unit_buffers::UnitBuffers;

/// The losses; a step gives their values in this order.
pub(super) const LOSSES: &[LossName] = &[loss!("loss", "total")];

/// The place of the number of tokens among a slot's values.
const TOKENS: usize = 1;

/// What dropout is drawn for. The first says what the task was once called: with another text it would draw
/// otherwise.
const DRAWS: Draws = Draws {
    qformer: "dropout of stage 2",
    language: "dropout of the language model",
    adapters: "dropout of adapters",
};

/// The published layouts.
const LAYOUTS: &[Layout] = &[Layout::HuggingFace, Layout::Lavis];

/// The same where adapters of the language model are trained.
const LAYOUTS_WITH_ADAPTERS: &[Layout] = &[Layout::HuggingFace, Layout::Lavis, Layout::Peft];

/// The published layouts of a task that may train adapters.
pub(super) fn layouts(lora: &LoraSettings) -> &'static [Layout] {
    if lora.is_on() { LAYOUTS_WITH_ADAPTERS } else { LAYOUTS }
}

/// What weights look like.
pub(super) const WEIGHTS: WeightNames = WeightNames {
    mark: "opt_proj.weight",
    not_published: &[],
    unused: TEXT_PARTS,
    own: &["opt_proj."],
    init_is_whole: false,
};

/// Two words, so that a caption can be cut.
const WARM_UP_CAPTION: &str = "a picture";

/// The Q-Former's parts for texts, which InstructBLIP has beside a projection and the task's model has not.
const TEXT_PARTS: &[&str] = &[
    "qformer.embeddings.*",
    "qformer.encoder.layer.*.intermediate.*",
    "qformer.encoder.layer.*.output.*",
    "Qformer.bert.embeddings.*",
    "Qformer.bert.encoder.layer.*.intermediate.*",
    "Qformer.bert.encoder.layer.*.output.*",
    "Qformer.cls.*",
];

impl Task for GenerateSettings {
    fn name(&self) -> &'static str {
        "generate"
    }

    fn title(&self) -> &'static str {
        "loss of the frozen language model's captions"
    }

    fn losses(&self) -> &'static [LossName] {
        LOSSES
    }

    fn default_batch(&self) -> u32 {
        1920
    }

    fn default_optimizer(&self) -> OptimizerSettings {
        OptimizerSettings { min_learning_rate: 5e-5, ..OptimizerSettings::default() }
    }

    fn unusable(&self, _: u32, _: &ModelSettings) -> Option<Unusable> {
        adapters::unusable(&self.lora)
    }

    fn needs(&self) -> Needs {
        Needs { bert: false, qformer_tokenizer: false, language_model: true }
    }

    fn text_length(&self) -> usize {
        self.text_length
    }

    fn passes(&self) -> Passes {
        let written = self.text_length;
        // A decoder's prompt is part of its text; an encoder reads the caption's first part, or the prompt.
        Passes::Language { asked: 0, read: [0, written], texts: 1, written }
    }

    fn prompt(&self) -> &str {
        &self.prompt
    }

    fn lora(&self) -> Option<&LoraSettings> {
        Some(&self.lora).filter(|lora| lora.is_on())
    }

    fn measure(&self) -> Measure {
        Measure::Captions
    }

    fn layouts(&self) -> &'static [Layout] {
        layouts(&self.lora)
    }
}

impl Trainable for GenerateSettings {
    fn language_texts<'a>(&'a self, stage: u32, name: &'a str) -> Option<LanguageTexts<'a>> {
        let (prompt, text_length) = (&self.prompt, self.text_length);
        Some(LanguageTexts { stage, name, prompt, text_length, answer_length: None, instructed: false })
    }

    fn encoder(&self, frozen: &FrozenModels, stage: u32) -> Result<Arc<TextEncoder>> {
        Ok(frozen.language()?.captions(stage)?.encoder())
    }

    fn model(&self, shape: &ModelShape<'_>, device: &Device) -> Result<Box<dyn TaskModel>> {
        let encoder = TaskEncoder::new(EncoderSettings::FROZEN, shape, device)?;
        let through = (self.language_model_dropout, &self.lora);
        Ok(Box::new(GenerateTask::new(shape, encoder, through, DRAWS, device)?))
    }

    fn weight_names(&self) -> WeightNames {
        WEIGHTS
    }
}

/// The model with what its step depends on.
#[derive(Debug)]
pub(super) struct GenerateTask {
    training: LanguageTraining,
    /// The stage's number.
    stage: u32,
    encoder: TaskEncoder,
    model: GenerateModel,
}

impl NamedTensors for GenerateTask {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.encoder.visit_tensors(prefix, visitor)?;
        self.model.visit_tensors(prefix, visitor)
    }
}

impl TaskModel for GenerateTask {
    fn tensors(&mut self) -> &mut dyn TrainedTensors {
        self
    }

    fn initialise(&mut self, seed: u64, _: Option<&WeightSource>, device: &Device) -> Result<(), ModelError> {
        self.encoder.initialise(device)?;
        initialise(&mut self.model, "", &mut SeededValues::new(seed), device)
    }

    fn learning_rate_scale(&self, tensor: &str) -> f64 {
        self.encoder.learning_rate_scale(tensor)
    }

    /// Slots sum over tokens; dividing the sum makes it the mean of the global batch.
    fn divisor(&self) -> Option<usize> {
        Some(TOKENS)
    }

    fn gradient(&mut self, step: &Step<'_>, sum: StepSum<'_>, watch: &mut Stopwatch) -> Result<Computed> {
        let landed = sum_of_slots(self, step, sum, watch)?;
        let [loss, tokens] = landed.values[..] else {
            return Err(WorkerError::Protocol("the summed losses have another length".into()));
        };
        let tokens = tokens.max(1.0);
        let losses = vec![f64::from(loss / tokens)];
        let odd_slots = odd_slots(step.batch, &landed.own_values);
        Ok(Computed { landed, losses, others: vec![("tokens", f64::from(tokens))], odd_slots })
    }

    fn warm_up(&self, frozen: &FrozenModels, rows: usize) -> Result<()> {
        let language = frozen.language()?;
        let features = self.encoder.features_of_nothing(frozen, rows)?;
        let prompt = self.model.forward(features, &mut Dropout::off(), &mut Tape::whole())?;
        let texts =
            language.captions(self.stage)?.held_out_texts(&vec![WARM_UP_CAPTION.to_string(); rows])?;
        let model = self.model.adapted(&language.model, &mut Dropout::off())?;
        model.caption_loss(Some(prompt), &texts.texts(), &frozen.device)?.objective.backward();
        Ok(())
    }

    /// The loss summed over the predicted tokens, and their number.
    fn held_out_unit(&self, frozen: &FrozenModels, _: usize, rows: &[HeldOutRow]) -> Result<Vec<u8>> {
        let language = frozen.language()?;
        let pixels = HeldOutRow::pixels_of(rows).into();
        let features = self.encoder.features_of(frozen, pixels, rows.len())?;
        let prompt = self.model.forward(features, &mut Dropout::off(), &mut Tape::whole())?;
        let captions: Vec<String> = rows.iter().map(|row| row.caption.clone()).collect();
        let batch = language.captions(self.stage)?.held_out_texts(&captions)?;
        let model = self.model.adapted(&language.model, &mut Dropout::off())?;
        let loss = model.caption_loss(Some(prompt), &batch.texts(), &frozen.device)?;
        Ok([loss.value.read()?.to_le_bytes(), (batch.tokens() as f64).to_le_bytes()].concat())
    }

    fn held_out_values(
        &self,
        _: &FrozenModels,
        held_out: &HeldOut,
        told: &mut UnitBuffers<'_>,
    ) -> Result<StepValues> {
        let (mut loss, mut tokens) = (0.0, 0.0);
        for (unit, _) in held_out.units().enumerate() {
            loss += told.float64(unit)?;
            tokens += told.float64(unit)?;
        }
        let losses = [loss / f64::max(tokens, 1.0)];
        Ok(LOSSES.iter().map(|loss| loss.held_out).zip(losses).collect())
    }

    fn scores(&self, set: &EvaluationSet<'_>) -> Result<Scores> {
        let language = set.language()?;
        let samples = &readable(set.samples, &language.captions(self.stage)?.encoder());
        let own = self.encoder.of_samples(set.images)?;
        let images = own.as_ref().unwrap_or(set.images);
        let model = &*self.model.adapted(&language.model, &mut Dropout::off())?;
        let through = Through { language, model, stage: self.stage, device: images.device() };
        let losses = caption_losses(images, &self.model, &through, samples, set.train.seed)?;
        Ok(Scores::Captions(losses))
    }

    /// In a whole folder the adapters are added to the language model's weights.
    fn export(&mut self, layout: Layout, mut target: ExportTarget<'_>) -> Result<()> {
        if layout == Layout::Peft {
            return target.adapters(&mut self.model.adapters, self.training.adapter_dropout);
        }
        let mut language_model = target.language_model()?;
        if layout == Layout::Lavis {
            let prefix = language_model.prefix();
            return Ok(export_lavis(target.out, self, Some(prefix), target.options.precision)?);
        }
        target.encoder = self.encoder.or(target.encoder)?;
        let tokenizer = target.model.language_model.as_ref();
        let (qformer, processor) = (target.qformer(), target.processor()?);
        let tokens = PromptTokens::choose_or_add(tokenizer, language_model.special_tokens())?;
        language_model.grow_vocabulary(tokens.image as usize + 1);
        let model = self.model.clone();
        let mut whole = Blip2::from_parts(target.encoder, model, language_model, qformer, tokens)?
            .with_processor(processor);
        Ok(export_blip2(target.out, &mut whole, tokenizer, target.options)?)
    }
}

impl GenerateTask {
    /// With a model of zeros.
    pub(super) fn new(
        shape: &ModelShape<'_>,
        encoder: TaskEncoder,
        (language_model_dropout, lora): (bool, &LoraSettings),
        draws: Draws,
        device: &Device,
    ) -> Result<Self> {
        let (settings, sizes) = (shape.model, shape.sizes);
        let qformer = settings.qformer_config(sizes.image_width, sizes.vocab);
        let model = GenerateModel::new(&qformer, settings.ln_vision_eps, sizes.language_width, device);
        let mut model = model.map_err(WorkerError::of_qformer_sizes)?;
        compute_in(&mut model, shape.train.compute)?;
        let model = adapters::adapting(lora, model, settings, device)?;
        let training =
            LanguageTraining { model_dropout: language_model_dropout, adapter_dropout: lora.dropout, draws };
        Ok(Self { training, stage: shape.stage, encoder, model })
    }
}

impl SlotLosses for GenerateTask {
    fn encoder(&self) -> &TaskEncoder {
        &self.encoder
    }

    /// The slot's loss summed over its tokens, and their number.
    fn slot_loss(
        &self,
        step: &Step<'_>,
        slot: &SlotBatch,
        features: Tensor<3>,
        tape: &mut Tape,
    ) -> Result<SlotLoss> {
        let mut dropout = step.dropout(self.training.draws.qformer, slot);
        let prompt = self.model.forward(features, &mut dropout, tape)?;
        let batch = step.frozen.language()?.captions(self.stage)?.slot_texts(slot)?;
        let loss = self.training.loss(&self.model, prompt, &batch.texts(), (step, slot))?;
        Ok(SlotLoss { loss, others: vec![batch.tokens() as f32] })
    }
}

/// A run's language model where it computes, as a stage asks it for captions.
struct Through<'a> {
    language: &'a Language,
    /// Its model, with the stage's adapters.
    model: &'a LanguageModel,
    stage: u32,
    device: &'a Device,
}

impl CaptionModel for Through<'_> {
    type Error = WorkerError;

    fn caption_loss(&self, soft_prompts: Option<Tensor<3>>, captions: &[String]) -> Result<SummedLoss> {
        let batch = self.language.captions(self.stage)?.held_out_texts(captions)?;
        let loss = self.model.caption_loss(soft_prompts, &batch.texts(), self.device)?;
        Ok(SummedLoss { sum: loss.value.read()?, tokens: batch.tokens() })
    }
}
