//! Vqa: the Q-Former reads a question beside the image, the frozen language model reads both and answers. The
//! loss is that of the answer and its end alone. The image encoder stays frozen, or is trained as well.

mod answer_rows;
mod measures;
mod measuring;
mod set_features;
mod settings;
mod wording;

pub use settings::{AnswerMode, QFormerText, VqaSettings};

use std::borrow::Cow;
use std::sync::Arc;

use blip2_dataset::corpus::samples::Sample;
use blip2_dataset::loader::SlotBatch;
use blip2_dataset::text::{Cut, Question, TextEncoder};
use blip2_evaluation::captions::other_rows;
use blip2_evaluation::error::EvaluationError;
use blip2_evaluation::held_out::{HeldOut, HeldOutRow};
use blip2_model::blip2::export::export_lavis;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::padded::Padded;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{WeightSource, initialise};
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, compute_in};
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Tensor};

pub(super) use self::answer_rows::DrawKey;
use self::answer_rows::answer_rows;
use self::measuring::{Measured, Measuring, selected};
use self::set_features::SetFeatures;
pub(super) use self::wording::{Worded, Wording};
use super::adapters::adapting;
use super::description::{LossName, Needs, Passes, Task, Unusable, loss};
use super::export::{Ending, ExportTarget, Layout};
use super::generate;
use super::image_encoder::TaskEncoder;
use super::language_step::{Draws, LanguageTraining, SlotLoss, SlotLosses, sum_of_slots};
use super::scores::{AnswerScores, EvaluationSet, Measure, QuestionSet, SampleAnswer, Scores};
use super::training::{ModelShape, TaskModel, Trainable, TrainedTensors, WeightNames};
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenModels;
use crate::language::{AskedText, GeneratedAnswer, Language, LanguageTexts};
use crate::open::{SeededValues, qformer_text, qformer_text_cut};
use crate::settings::encoder::EncoderTraining;
use crate::settings::lora::LoraSettings;
use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;
use crate::sum::context::{Computed, Step, StepSum, StepValues};
use crate::sum::odd_slots::odd_slots;
use crate::sum::times::Stopwatch;
use crate::sum::unit_buffers::UnitBuffers;

/// The losses; a step gives their values in this order.
pub(super) const LOSSES: &[LossName] = &[loss!("loss", "total")];

/// The place among a slot's values of the number by whose sum its loss is divided.
const DIVISOR: usize = 1;

/// Values of image features that are kept to ask about other images: 2 GiB, of 1,480 images of ViT-g at 224
/// pixels.
const KEPT_VALUES: usize = 1 << 29;

/// What dropout is drawn for.
const DRAWS: Draws = Draws {
    qformer: "dropout beside questions",
    language: "dropout of the language model of answers",
    adapters: "dropout of adapters of answers",
};

/// What a stage-1 file has besides, and no task that reads questions trains.
const LANGUAGE_HEAD: &[&str] = &["Qformer.cls.*"];

/// What weights look like.
pub(super) const WEIGHTS: WeightNames = WeightNames {
    mark: "opt_proj.weight",
    not_published: &[],
    unused: LANGUAGE_HEAD,
    own: &[],
    init_is_whole: false,
};

impl Task for VqaSettings {
    fn name(&self) -> &'static str {
        "vqa"
    }

    fn title(&self) -> &'static str {
        "loss of the frozen language model's answers"
    }

    fn losses(&self) -> &'static [LossName] {
        LOSSES
    }

    fn default_batch(&self) -> u32 {
        128
    }

    fn default_optimizer(&self) -> OptimizerSettings {
        OptimizerSettings::fine_tuning()
    }

    fn unusable(&self, _: u32, model: &ModelSettings) -> Option<Unusable> {
        self.what_is_unusable(model)
    }

    fn needs(&self) -> Needs {
        Needs { bert: false, qformer_tokenizer: true, language_model: true }
    }

    fn text_length(&self) -> usize {
        self.question_length
    }

    fn passes(&self) -> Passes {
        let read = [self.prompt_length; 2];
        let texts = match self.answers {
            AnswerMode::Weighted => self.answer_rows as usize,
            AnswerMode::Sample | AnswerMode::Majority => 1,
        };
        Passes::Language { asked: self.question_length, read, texts, written: self.answer_length }
    }

    fn prompt(&self) -> &str {
        &self.prompt
    }

    fn asks(&self) -> bool {
        true
    }

    fn continues(&self) -> bool {
        true
    }

    fn lora(&self) -> Option<&LoraSettings> {
        Some(&self.lora).filter(|lora| lora.is_on())
    }

    fn trains_encoder(&self) -> bool {
        self.image_encoder == EncoderTraining::Trained
    }

    fn measure(&self) -> Measure {
        Measure::Answers
    }

    fn layouts(&self) -> &'static [Layout] {
        generate::layouts(&self.lora)
    }
}

impl Trainable for VqaSettings {
    fn language_texts<'a>(&'a self, stage: u32, name: &'a str) -> Option<LanguageTexts<'a>> {
        let (prompt, text_length) = (&self.prompt, self.prompt_length);
        let answer_length = Some(self.answer_length);
        Some(LanguageTexts { stage, name, prompt, text_length, answer_length, instructed: false })
    }

    fn encoder(&self, frozen: &FrozenModels, stage: u32) -> Result<Arc<TextEncoder>> {
        self.question_encoder(&frozen.model, frozen.language()?, stage)
    }

    fn model(&self, shape: &ModelShape<'_>, device: &Device) -> Result<Box<dyn TaskModel>> {
        Ok(Box::new(VqaTask::new(shape, self.clone(), DRAWS, None, device)?))
    }

    fn weight_names(&self) -> WeightNames {
        WEIGHTS
    }

    fn text_half(&self) -> Option<&str> {
        Some(&self.text_half)
    }

    fn place_text_half(&mut self, path: String) {
        self.text_half = path;
    }
}

impl VqaSettings {
    /// How the Q-Former reads questions in the stage of this number.
    fn question_encoder(
        &self,
        model: &ModelSettings,
        language: &Language,
        stage: u32,
    ) -> Result<Arc<TextEncoder>> {
        let length = self.question_length;
        let (encoder, _) = match self.qformer_text {
            QFormerText::Question => qformer_text(model, length)?,
            // Of a prompt the end says what is asked for.
            QFormerText::Prompt => {
                qformer_text_cut(model, length, language.answers(stage)?.around(), Cut::First)?
            }
        };
        Ok(encoder)
    }
}

/// The model with what its step depends on.
#[derive(Debug)]
pub(super) struct VqaTask {
    settings: VqaSettings,
    key: DrawKey,
    training: LanguageTraining,
    /// Where questions are put into words before they are read, and a caption is what no question asks for.
    worded: Option<Worded>,
    encoder: TaskEncoder,
    model: GenerateModel,
}

impl NamedTensors for VqaTask {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.encoder.visit_tensors(prefix, visitor)?;
        self.model.visit_tensors(prefix, visitor)
    }
}

impl TaskModel for VqaTask {
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

    /// Slots sum over tokens, or over answers by their weights; dividing the sum by the global batch's
    /// tokens, or by its questions, makes it a mean.
    fn divisor(&self) -> Option<usize> {
        Some(DIVISOR)
    }

    fn gradient(&mut self, step: &Step<'_>, sum: StepSum<'_>, watch: &mut Stopwatch) -> Result<Computed> {
        let landed = sum_of_slots(self, step, sum, watch)?;
        let [loss, divisor, tokens] = landed.values[..] else {
            return Err(WorkerError::Protocol("the summed losses have another length".into()));
        };
        let losses = vec![f64::from(loss / divisor.max(1.0))];
        let odd_slots = odd_slots(step.batch, &landed.own_values);
        Ok(Computed { landed, losses, others: vec![("tokens", f64::from(tokens))], odd_slots })
    }

    fn warm_up(&self, frozen: &FrozenModels, rows: usize) -> Result<()> {
        let language = frozen.language()?;
        let length = self.settings.question_length;
        let (ids, mask) = (vec![0; rows * length], vec![1; rows * length]);
        let questions = Padded { ids: &ids, mask: &mask };
        let features = self.encoder.features_of_nothing(frozen, rows)?;
        let (dropout, tape) = (&mut Dropout::off(), &mut Tape::whole());
        let mut prompt = self.model.forward_asked(features, questions, dropout, tape)?;
        let mut asked = vec![AskedText { question: "what is this?", answer: "a picture" }; rows];
        if self.settings.answers == AnswerMode::Weighted {
            let places: Vec<usize> =
                (0..rows * self.settings.answer_rows as usize).map(|at| at % rows).collect();
            prompt = selected(prompt, &places);
            asked = vec![asked[0]; places.len()];
        }
        let texts = language.answers(self.key.stage)?.batch(&asked, Vec::new())?;
        let model = self.model.adapted(&language.model, &mut Dropout::off())?;
        model.caption_loss(Some(prompt), &texts.texts(), &frozen.device)?.objective.backward();
        Ok(())
    }

    /// The loss of the most frequent answers summed over their tokens, the number of these, and the summed
    /// accuracy of what is written.
    fn held_out_unit(&self, frozen: &FrozenModels, _: usize, rows: &[HeldOutRow]) -> Result<Vec<u8>> {
        let language = frozen.language()?;
        let measuring = self.measuring();
        let asked: Vec<Cow<'_, Question>> =
            rows.iter().map(|row| measuring.question_of(row)).collect::<Result<_>>()?;
        let asked: Vec<&Question> = asked.iter().map(Cow::as_ref).collect();
        let pixels = HeldOutRow::pixels_of(rows).into();
        let features = self.encoder.features_of(frozen, pixels, rows.len())?;
        let prompt = match &self.worded {
            Some(worded) => {
                let texts: Vec<String> = asked.iter().map(|asked| worded.held_out(&asked.text)).collect();
                measuring.soft_prompts(features, worded.read(&frozen.model, &texts)?.questions())?
            }
            None => {
                let (ids, mask) = HeldOutRow::tokens_of(rows);
                measuring.soft_prompts(features, Padded { ids: &ids, mask: &mask })?
            }
        };
        let Measured { loss, tokens, accuracy, .. } =
            measuring.measured(language, &prompt, &asked, &frozen.device)?;
        Ok([loss.to_le_bytes(), tokens.to_le_bytes(), accuracy.to_le_bytes()].concat())
    }

    fn held_out_values(
        &self,
        _: &FrozenModels,
        held_out: &HeldOut,
        told: &mut UnitBuffers<'_>,
    ) -> Result<StepValues> {
        let (mut loss, mut tokens, mut accuracy) = (0.0, 0.0, 0.0);
        for (unit, _) in held_out.units().enumerate() {
            loss += told.float64(unit)?;
            tokens += told.float64(unit)?;
            accuracy += told.float64(unit)?;
        }
        let losses = LOSSES.iter().map(|name| (name.held_out, loss / f64::max(tokens, 1.0)));
        let questions = held_out.rows.iter().filter(|row| row.question.is_some()).count();
        let accuracy = accuracy / questions.max(1) as f64;
        Ok(losses.chain([("eval_accuracy", accuracy)]).collect())
    }

    fn scores(&self, set: &EvaluationSet<'_>) -> Result<Scores> {
        let language = set.language()?;
        let encoder = self.settings.question_encoder(set.model, language, self.key.stage)?;
        let measuring = self.measuring();
        let (places, asked): (Vec<usize>, Vec<(&Sample, Cow<'_, Question>)>) = (0..)
            .zip(set.samples)
            .filter_map(|(place, sample)| Some((place, (sample, measuring.question_in(sample, &encoder)?))))
            .unzip();
        let samples: Vec<&Sample> = asked.iter().map(|(sample, _)| *sample).collect();
        let asked: Vec<&Question> = asked.iter().map(|(_, question)| question.as_ref()).collect();
        if asked.is_empty() {
            let reason =
                "evaluation set: no question with an answer; data.columns.question and .answers name them";
            return Err(EvaluationError::Configuration(reason.into()).into());
        }
        let answers: Vec<String> =
            asked.iter().map(|question| question.answers.most_frequent().to_owned()).collect();
        let others = other_rows(&answers, set.train.seed);
        let own: Vec<usize> = (0..asked.len()).collect();
        let trained = self.encoder.of_samples(set.images)?;
        let through = trained.as_ref().unwrap_or(set.images);
        let features_of = |images: &[usize]| -> Result<Tensor<3>> {
            let samples: Vec<&Sample> = images.iter().map(|image| samples[*image]).collect();
            let features = through.image_features(&samples).collect::<std::result::Result<Vec<_>, _>>()?;
            Ok(Tensor::cat(features, 0))
        };
        let mut features = SetFeatures::new(features_of, KEPT_VALUES);
        let models = (language, set.model, &*encoder);
        let mut with = |images: &[usize]| measuring.measured_set(models, &asked, images, &mut features);
        let (with_own, with_others) = (with(&own)?, with(&others)?);
        let questions = asked.iter().filter(|question| !question.asks_for_a_caption()).count();
        let share = |right: f64| right / questions.max(1) as f64;
        let written = with_own.written.into_iter();
        Ok(Scores::Answers(AnswerScores {
            loss: with_own.loss / with_own.tokens.max(1.0),
            accuracy: share(with_own.accuracy),
            shuffled: share(with_others.accuracy),
            questions,
            written: written.map(|(place, text)| SampleAnswer { sample: places[place], text }).collect(),
        }))
    }

    fn answers(&self, set: &QuestionSet<'_>) -> Result<Vec<GeneratedAnswer>> {
        let encoder = self.settings.question_encoder(set.model, set.language, self.key.stage)?;
        let trained = self.encoder.of_samples(set.encoder)?;
        let images = trained.as_ref().unwrap_or(set.encoder).features(set.images)?;
        let texts = set.language.answers(self.key.stage)?;
        let model = self.model.adapted(&set.language.model, &mut Dropout::off())?;
        let measuring = self.measuring();
        let mut answers = Vec::with_capacity(set.questions.len());
        for (questions, places) in set.questions.chunks(set.batch).zip(set.places.chunks(set.batch)) {
            let features = selected(images.clone(), places);
            let prompt = measuring.asked(features, set.model, &encoder, questions)?;
            let read: Vec<String> = questions.iter().map(|question| measuring.text_of(question)).collect();
            let read: Vec<&str> = read.iter().map(String::as_str).collect();
            let device = set.encoder.device();
            answers.extend(texts.written(&model, prompt, &read, set.search, device)?);
        }
        Ok(answers)
    }

    fn export(&mut self, layout: Layout, mut target: ExportTarget<'_>) -> Result<()> {
        if layout == Layout::Peft {
            return target.adapters(&mut self.model.adapters, self.settings.lora.dropout);
        }
        let language_model = target.language_model()?;
        if layout == Layout::Lavis {
            let prefix = language_model.prefix();
            return Ok(export_lavis(target.out, self, Some(prefix), target.options.precision)?);
        }
        target.encoder = self.encoder.or(target.encoder)?;
        let (asking, ending) = match &self.worded {
            Some(worded) => (worded.asking(), Ending::EndToken),
            None => (self.settings.asking(language_model.is_encoder_decoder()), Ending::Caption),
        };
        target.instructblip(self.model.clone(), language_model, asking, ending)
    }
}

impl VqaTask {
    /// With a model of zeros.
    pub(super) fn new(
        shape: &ModelShape<'_>,
        settings: VqaSettings,
        draws: Draws,
        worded: Option<Worded>,
        device: &Device,
    ) -> Result<Self> {
        let (model, sizes) = (shape.model, shape.sizes);
        let qformer = model.qformer_config(sizes.image_width, sizes.vocab);
        let (eps, width) = (model.ln_vision_eps, sizes.language_width);
        let model = GenerateModel::reading_questions(&qformer, eps, width, device);
        let mut model = model.map_err(WorkerError::of_qformer_sizes)?;
        compute_in(&mut model, shape.train.compute)?;
        let model = adapting(&settings.lora, model, shape.model, device)?;
        let key = DrawKey { seed: shape.train.seed, stage: shape.stage };
        let encoder = TaskEncoder::new(settings.encoder_settings(), shape, device)?;
        let training = LanguageTraining {
            model_dropout: settings.language_model_dropout,
            adapter_dropout: settings.lora.dropout,
            draws,
        };
        Ok(Self { settings, key, training, worded, encoder, model })
    }

    fn measuring(&self) -> Measuring<'_> {
        Measuring { model: &self.model, worded: self.worded.as_ref(), stage: self.key.stage }
    }
}

impl SlotLosses for VqaTask {
    fn encoder(&self) -> &TaskEncoder {
        &self.encoder
    }

    /// The slot's loss, by what its sum over the slots is divided, and its tokens.
    fn slot_loss(
        &self,
        step: &Step<'_>,
        slot: &SlotBatch,
        features: Tensor<3>,
        tape: &mut Tape,
    ) -> Result<SlotLoss> {
        let language = step.frozen.language()?;
        if slot.questions.len() != slot.samples.len() {
            return Err(WorkerError::Protocol(format!("slot {} has no questions", slot.slot)));
        }
        let texts = self.worded.as_ref().map(|worded| worded.drawn(&slot.questions, &slot.samples));
        let read = match (&self.worded, &texts) {
            (Some(worded), Some(texts)) => Some(worded.read(&step.frozen.model, texts)?),
            _ => None,
        };
        let questions = match &read {
            Some(read) => read.questions(),
            None => Padded { ids: &slot.ids, mask: &slot.mask },
        };
        let mut dropout = step.dropout(self.training.draws.qformer, slot);
        let mut prompt = self.model.forward_asked(features, questions, &mut dropout, tape)?;
        let rows = answer_rows(&self.settings, self.key, &slot.questions, &slot.samples);
        let is_weighted = self.settings.answers == AnswerMode::Weighted;
        let mut weights = Vec::new();
        if is_weighted {
            let places: Vec<usize> = rows.iter().map(|row| row.question).collect();
            // Images and questions were read once, whatever the number of answers.
            prompt = selected(prompt, &places);
            weights = rows.iter().map(|row| row.weight).collect();
        }
        let asked: Vec<AskedText<'_>> = rows
            .iter()
            .map(|row| {
                let question = match &texts {
                    Some(texts) => &texts[row.question],
                    None => &slot.questions[row.question].text,
                };
                AskedText { question, answer: row.answer }
            })
            .collect();
        let batch = language.answers(self.key.stage)?.batch(&asked, weights)?;
        let loss = self.training.loss(&self.model, prompt, &batch.texts(), (step, slot))?;
        let tokens = batch.tokens();
        let divisor = if is_weighted { slot.questions.len() } else { tokens };
        Ok(SlotLoss { loss, others: vec![divisor as f32, tokens as f32] })
    }
}
