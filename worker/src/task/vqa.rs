//! Vqa: the Q-Former reads a question beside the image, the frozen language model reads both and answers. The
//! loss is that of the answer and its end alone. The image encoder stays frozen, or is trained as well.

mod answer_rows;
mod measures;
mod settings;

pub use settings::{AnswerMode, QFormerText, VqaSettings};

use std::sync::Arc;

use blip2_dataset::corpus::samples::Sample;
use blip2_dataset::loader::SlotBatch;
use blip2_dataset::text::{Question, TextEncoder};
use blip2_evaluation::captions::other_rows;
use blip2_evaluation::error::EvaluationError;
use blip2_evaluation::held_out::{HeldOut, HeldOutRow};
use blip2_evaluation::sample_encoder::SampleEncoder;
use blip2_model::blip2::export::export_lavis;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::objectives::questions::Questions;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{WeightSource, initialise};
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, compute_in};
use blip2_tensors::train::loss::Loss;
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Int, Tensor, TensorData};

use self::answer_rows::{DrawKey, answer_rows};
use self::measures::accuracy_of;
use super::description::{LossName, Needs, Task, Unusable, loss};
use super::export::{ExportTarget, Layout};
use super::image_encoder::TaskEncoder;
use super::scores::{AnswerScores, EvaluationSet, Measure, QuestionSet, Scores};
use super::training::{Bounded, ModelShape, TaskModel, Trainable, TrainedTensors, WeightNames};
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenModels;
use crate::language::{AskedText, GeneratedAnswer, Language, LanguageTexts};
use crate::open::{SeededValues, qformer_text, qformer_text_around};
use crate::settings::encoder::EncoderTraining;
use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;
use crate::sum::context::{Computed, Step, StepSum, StepValues};
use crate::sum::odd_slots::odd_slots;
use crate::sum::times::Stopwatch;
use crate::sum::unit_buffers::UnitBuffers;

/// The losses; a step gives their values in this order.
const LOSSES: &[LossName] = &[loss!("loss", "total")];

/// The place among a slot's values of the number by whose sum its loss is divided.
const DIVISOR: usize = 1;

const DROPOUT: &str = "dropout beside questions";
const LANGUAGE_DROPOUT: &str = "dropout of the language model of answers";

/// Questions of an evaluation that are computed together.
const BATCH: usize = 16;

/// What a stage-1 file has besides, and no task that reads questions trains.
const LANGUAGE_HEAD: &[&str] = &["Qformer.cls.*"];

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

    fn prompt(&self) -> &str {
        &self.prompt
    }

    fn contrasts(&self) -> bool {
        false
    }

    fn asks(&self) -> bool {
        true
    }

    fn continues(&self) -> bool {
        true
    }

    fn trains_encoder(&self) -> bool {
        self.image_encoder == EncoderTraining::Trained
    }

    fn measure(&self) -> Measure {
        Measure::Answers
    }

    fn layouts(&self) -> &'static [Layout] {
        &[Layout::Lavis]
    }
}

impl Trainable for VqaSettings {
    fn language_texts<'a>(&'a self, stage: u32, name: &'a str) -> Option<LanguageTexts<'a>> {
        let (prompt, text_length) = (&self.prompt, self.prompt_length);
        Some(LanguageTexts { stage, name, prompt, text_length, answer_length: Some(self.answer_length) })
    }

    fn encoder(&self, frozen: &FrozenModels, stage: u32) -> Result<Arc<TextEncoder>> {
        self.question_encoder(&frozen.model, frozen.language()?, stage)
    }

    fn model(&self, shape: &ModelShape<'_>, device: &Device) -> Result<Box<dyn TaskModel>> {
        let (settings, sizes) = (shape.model, shape.sizes);
        let qformer = settings.qformer_config(sizes.image_width, sizes.vocab);
        let (eps, width) = (settings.ln_vision_eps, sizes.language_width);
        let model = GenerateModel::reading_questions(&qformer, eps, width, device);
        let mut model = model.map_err(WorkerError::of_qformer_sizes)?;
        compute_in(&mut model, shape.train.compute)?;
        let key = DrawKey { seed: shape.train.seed, stage: shape.stage };
        let encoder = TaskEncoder::new(self.encoder_settings(), shape, device)?;
        Ok(Box::new(VqaTask { settings: self.clone(), key, encoder, model }))
    }

    fn weight_names(&self) -> WeightNames {
        WeightNames {
            mark: "opt_proj.weight",
            not_published: &[],
            unused: LANGUAGE_HEAD,
            own: &[],
            init_is_whole: false,
        }
    }

    fn text_half(&self) -> Option<&str> {
        Some(&self.text_half)
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
            QFormerText::Prompt => qformer_text_around(model, length, language.answers(stage)?.around())?,
        };
        Ok(encoder)
    }
}

/// The model with what its step depends on.
#[derive(Debug)]
struct VqaTask {
    settings: VqaSettings,
    key: DrawKey,
    encoder: TaskEncoder,
    model: GenerateModel,
}

impl NamedTensors for VqaTask {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.encoder.visit_tensors(prefix, visitor)?;
        self.model.visit_tensors(prefix, visitor)
    }
}

/// A slot's loss, by what its sum over the slots is divided, and its tokens.
struct SlotLoss {
    loss: Loss,
    divisor: f32,
    tokens: usize,
}

impl TaskModel for VqaTask {
    fn tensors(&mut self) -> &mut dyn TrainedTensors {
        self
    }

    fn initialise(&mut self, seed: u64, _: Option<&WeightSource>, device: &Device) -> Result<(), ModelError> {
        self.encoder.initialise(device)?;
        initialise(&mut self.model, "", &mut SeededValues::new(seed), device)
    }

    fn check_bert(&mut self, _: &WeightSource) -> Result<(), ModelError> {
        Ok(())
    }

    fn bounded(&self) -> Option<Bounded> {
        None
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
        let landed = sum.of_slots(step, watch, |sums, watch| {
            for slot in &step.batch.slots {
                let mut tape = Tape::segmented();
                let (features, pass) = self.encoder.encode_slot(step, slot, watch)?;
                let SlotLoss { loss, divisor, tokens } = watch
                    .time(|times| &mut times.forward, || self.slot_loss(step, slot, features, &mut tape))?;
                let value = loss.value;
                sums.push_values(move || Ok(vec![value.read()? as f32, divisor, tokens as f32]))?;
                pass.backward(self, tape, loss.objective, sums, watch)?;
            }
            Ok(())
        })?;
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
        let questions = Questions { ids: &ids, mask: &mask };
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
        language.model.caption_loss(Some(prompt), &texts.texts(), &frozen.device)?;
        Ok(())
    }

    /// The loss of the most frequent answers summed over their tokens, the number of these, and the summed
    /// accuracy of what is written.
    fn held_out_unit(&self, frozen: &FrozenModels, _: usize, rows: &[HeldOutRow]) -> Result<Vec<u8>> {
        let language = frozen.language()?;
        let asked: Vec<&Question> = rows.iter().map(question_of).collect::<Result<_>>()?;
        let pixels = rows.iter().flat_map(|row| row.pixels.iter().copied()).collect();
        let features = self.encoder.features_of(frozen, pixels, rows.len())?;
        let ids: Vec<i32> = rows.iter().flat_map(|row| row.tokens.ids.iter().copied()).collect();
        let mask: Vec<i32> = rows.iter().flat_map(|row| row.tokens.mask.iter().copied()).collect();
        let prompt = self.soft_prompts(features, Questions { ids: &ids, mask: &mask })?;
        let Measured { loss, tokens, accuracy } = self.measured(language, &prompt, &asked, &frozen.device)?;
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
        let accuracy = accuracy / held_out.rows.len().max(1) as f64;
        Ok(losses.chain([("eval_accuracy", accuracy)]).collect())
    }

    fn scores(&self, set: &EvaluationSet<'_>) -> Result<Scores> {
        let language = set.language()?;
        let encoder = self.settings.question_encoder(set.model, language, self.key.stage)?;
        let is_readable = |question: &Question| encoder.encode(&question.text).is_ok();
        let asked: Vec<(&Sample, &Question)> = set
            .samples
            .iter()
            .filter_map(|sample| Some((sample, sample.question.as_ref().filter(|asked| is_readable(asked))?)))
            .collect();
        if asked.is_empty() {
            let reason =
                "evaluation set: no question with an answer; data.columns.question and .answers name them";
            return Err(EvaluationError::Configuration(reason.into()).into());
        }
        let answers: Vec<String> =
            asked.iter().map(|(_, question)| question.answers.most_frequent().to_owned()).collect();
        let others = other_rows(&answers, set.train.seed);
        let own: Vec<usize> = (0..asked.len()).collect();
        let trained = self.encoder.of_samples(set.images)?;
        let through = (language, trained.as_ref().unwrap_or(set.images));
        let with = |images: &[usize]| self.measured_set(through, &encoder, &asked, images);
        let (with_own, with_others) = (with(&own)?, with(&others)?);
        let questions = asked.len();
        Ok(Scores::Answers(AnswerScores {
            loss: with_own.loss / with_own.tokens.max(1.0),
            accuracy: with_own.accuracy / questions as f64,
            shuffled: with_others.accuracy / questions as f64,
            questions,
        }))
    }

    fn answers(&self, set: &QuestionSet<'_>) -> Result<Vec<GeneratedAnswer>> {
        let encoder = self.settings.question_encoder(set.model, set.language, self.key.stage)?;
        let trained = self.encoder.of_samples(set.encoder)?;
        let images = trained.as_ref().unwrap_or(set.encoder).features(set.images)?;
        let texts = set.language.answers(self.key.stage)?;
        let mut answers = Vec::with_capacity(set.questions.len());
        for (questions, places) in set.questions.chunks(set.batch).zip(set.places.chunks(set.batch)) {
            let (mut ids, mut mask) = (Vec::new(), Vec::new());
            for question in questions {
                let tokens = encoder.encode(question)?;
                ids.extend(tokens.ids);
                mask.extend(tokens.mask);
            }
            let features = selected(images.clone(), places);
            let prompt = self.soft_prompts(features, Questions { ids: &ids, mask: &mask })?;
            let device = set.encoder.device();
            answers.extend(texts.written(&set.language.model, prompt, questions, set.search, device)?);
        }
        Ok(answers)
    }

    fn export(&mut self, _: Layout, target: ExportTarget<'_>) -> Result<()> {
        self.encoder.has_names_in_lavis()?;
        let language_model = target.language_model()?;
        let prefix = language_model.prefix();
        Ok(export_lavis(target.out, self, Some(prefix), target.options.precision)?)
    }
}

/// Sums over questions.
#[derive(Debug, Default)]
struct Measured {
    /// Of the most frequent answers' tokens.
    loss: f64,
    tokens: f64,
    accuracy: f64,
}

impl VqaTask {
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
        let questions = Questions { ids: &slot.ids, mask: &slot.mask };
        let mut prompt =
            self.model.forward_asked(features, questions, &mut step.dropout(DROPOUT, slot), tape)?;
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
            .map(|row| AskedText { question: &slot.questions[row.question].text, answer: row.answer })
            .collect();
        let batch = language.answers(self.key.stage)?.batch(&asked, weights)?;
        // Off, the language model is the same in training as in use.
        let probability = if self.settings.language_model_dropout { language.model.dropout() } else { 0.0 };
        let mut dropout = step.frozen.dropout_of(probability, LANGUAGE_DROPOUT, step.number, slot.slot);
        let loss =
            language.model.training_loss(Some(prompt), &batch.texts(), &mut dropout, &step.frozen.device)?;
        let tokens = batch.tokens();
        let divisor = if is_weighted { slot.questions.len() } else { tokens };
        Ok(SlotLoss { loss, divisor: divisor as f32, tokens })
    }

    fn soft_prompts(&self, features: Tensor<3>, questions: Questions<'_>) -> Result<Tensor<3>> {
        Ok(self.model.forward_asked(features, questions, &mut Dropout::off(), &mut Tape::whole())?)
    }

    /// What the soft prompts of these questions come to.
    fn measured(
        &self,
        language: &Language,
        prompt: &Tensor<3>,
        asked: &[&Question],
        device: &Device,
    ) -> Result<Measured> {
        let texts = language.answers(self.key.stage)?;
        let known = |question: &&Question| -> (String, String) {
            (question.text.clone(), question.answers.most_frequent().to_owned())
        };
        let known: Vec<(String, String)> = asked.iter().map(known).collect();
        let pairs: Vec<AskedText<'_>> =
            known.iter().map(|(question, answer)| AskedText { question, answer }).collect();
        let batch = texts.batch(&pairs, Vec::new())?;
        let loss = language.model.caption_loss(Some(prompt.clone()), &batch.texts(), device)?;
        let questions: Vec<&str> = asked.iter().map(|question| question.text.as_str()).collect();
        let written = texts.written(&language.model, prompt.clone(), &questions, &texts.greedy(), device)?;
        let right =
            asked.iter().zip(&written).map(|(asked, written)| accuracy_of(&asked.answers, &written.text));
        Ok(Measured { loss: loss.value.read()?, tokens: batch.tokens() as f64, accuracy: right.sum() })
    }

    /// The same of a set, where question `i` is asked of the image of question `images[i]`.
    fn measured_set(
        &self,
        (language, through): (&Language, &SampleEncoder),
        encoder: &TextEncoder,
        asked: &[(&Sample, &Question)],
        images: &[usize],
    ) -> Result<Measured> {
        let mut all = Measured::default();
        for (asked_now, images) in asked.chunks(BATCH).zip(images.chunks(BATCH)) {
            let samples: Vec<&Sample> = images.iter().map(|image| asked[*image].0).collect();
            let questions: Vec<&Question> = asked_now.iter().map(|(_, question)| *question).collect();
            let (mut ids, mut mask) = (Vec::new(), Vec::new());
            for question in &questions {
                let tokens = encoder.encode(&question.text)?;
                ids.extend(tokens.ids);
                mask.extend(tokens.mask);
            }
            let features = through.image_features(&samples).collect::<std::result::Result<Vec<_>, _>>()?;
            let prompt = self.soft_prompts(Tensor::cat(features, 0), Questions { ids: &ids, mask: &mask })?;
            let part = self.measured(language, &prompt, &questions, through.device())?;
            all.loss += part.loss;
            all.tokens += part.tokens;
            all.accuracy += part.accuracy;
        }
        Ok(all)
    }
}

/// The question of a held-out row, which was read with questions.
fn question_of(row: &HeldOutRow) -> Result<&Question> {
    row.question.as_ref().ok_or_else(|| WorkerError::Protocol("a held-out row without a question".into()))
}

/// The rows of these numbers.
///
/// # Shapes
/// - rows `[b, queries, width]`; output `[places, queries, width]`
fn selected(rows: Tensor<3>, places: &[usize]) -> Tensor<3> {
    let index: Vec<i32> = places.iter().map(|place| *place as i32).collect();
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [places.len()]), &rows.device());
    rows.select(0, index)
}
