//! Held-out questions: their losses, and the answers that the model writes.

use std::borrow::Cow;

use blip2_dataset::corpus::samples::Sample;
use blip2_dataset::text::{Question, TextEncoder};
use blip2_evaluation::captions::caption;
use blip2_evaluation::held_out::HeldOutRow;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::padded::Padded;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::measures::accuracy_of;
use super::set_features::SetFeatures;
use super::wording::Worded;
use crate::error::{Result, WorkerError};
use crate::language::{AskedText, Language};
use crate::settings::model::ModelSettings;

/// Questions of an evaluation that are computed together.
const BATCH: usize = 16;

/// A model, and how it is asked held-out questions.
pub(super) struct Measuring<'a> {
    pub(super) model: &'a GenerateModel,
    /// As of the task.
    pub(super) worded: Option<&'a Worded>,
    /// The stage's number.
    pub(super) stage: u32,
}

/// Sums over questions.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Of the most frequent answers' tokens.
    pub(super) loss: f64,
    pub(super) tokens: f64,
    pub(super) accuracy: f64,
    /// What was answered to each question, by its place; a caption is not written.
    pub(super) written: Vec<(usize, String)>,
}

impl Measuring<'_> {
    /// The question of a held-out row; a caption is one where questions are put into words.
    pub(super) fn question_of<'r>(&self, row: &'r HeldOutRow) -> Result<Cow<'r, Question>> {
        match (&row.question, self.worded) {
            (Some(question), _) => Ok(Cow::Borrowed(question)),
            (None, Some(_)) => Ok(Cow::Owned(Question::of_caption(&row.caption))),
            (None, None) => Err(WorkerError::Protocol("a held-out row without a question".into())),
        }
    }

    /// That of a sample, where it has one that can be read.
    pub(super) fn question_in<'s>(
        &self,
        sample: &'s Sample,
        encoder: &TextEncoder,
    ) -> Option<Cow<'s, Question>> {
        let question = match (&sample.question, self.worded) {
            (Some(question), _) => Cow::Borrowed(question),
            (None, Some(_)) => Cow::Owned(Question::of_caption(&caption(sample))),
            (None, None) => return None,
        };
        let is_readable = !question.answers.is_empty() && encoder.encode(&question.text).is_ok();
        is_readable.then_some(question)
    }

    /// What the language model reads of a held-out question, besides its prompt.
    pub(super) fn text_of(&self, question: &str) -> String {
        self.worded.map_or_else(|| question.to_owned(), |worded| worded.held_out(question))
    }

    /// The soft prompts of images of which these questions are asked.
    pub(super) fn asked(
        &self,
        features: Tensor<3>,
        model: &ModelSettings,
        encoder: &TextEncoder,
        questions: &[&str],
    ) -> Result<Tensor<3>> {
        if let Some(worded) = self.worded {
            let texts: Vec<String> = questions.iter().map(|question| worded.held_out(question)).collect();
            return self.soft_prompts(features, worded.read(model, &texts)?.questions());
        }
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for question in questions {
            let tokens = encoder.encode(question)?;
            ids.extend(tokens.ids);
            mask.extend(tokens.mask);
        }
        self.soft_prompts(features, Padded { ids: &ids, mask: &mask })
    }

    pub(super) fn soft_prompts(&self, features: Tensor<3>, questions: Padded<'_>) -> Result<Tensor<3>> {
        Ok(self.model.forward_asked(features, questions, &mut Dropout::off(), &mut Tape::whole())?)
    }

    /// What the soft prompts of these questions come to.
    pub(super) fn measured(
        &self,
        language: &Language,
        prompt: &Tensor<3>,
        asked: &[&Question],
        device: &Device,
    ) -> Result<Measured> {
        let texts = language.answers(self.stage)?;
        let known = |question: &&Question| -> (String, String) {
            (self.text_of(&question.text), question.answers.most_frequent().to_owned())
        };
        let known: Vec<(String, String)> = asked.iter().map(known).collect();
        let pairs: Vec<AskedText<'_>> =
            known.iter().map(|(question, answer)| AskedText { question, answer }).collect();
        let batch = texts.batch(&pairs, Vec::new())?;
        let model = self.model.adapted(&language.model, &mut Dropout::off())?;
        let loss = model.caption_loss(Some(prompt.clone()), &batch.texts(), device)?;
        // A caption is neither right nor wrong: only questions are answered.
        let places: Vec<usize> =
            (0..asked.len()).filter(|place| !asked[*place].asks_for_a_caption()).collect();
        let mut measured = Measured {
            loss: loss.value.read()?,
            tokens: batch.tokens() as f64,
            accuracy: 0.0,
            written: Vec::with_capacity(places.len()),
        };
        if places.is_empty() {
            return Ok(measured);
        }
        let prompt =
            if places.len() == asked.len() { prompt.clone() } else { selected(prompt.clone(), &places) };
        let questions: Vec<&str> = places.iter().map(|place| known[*place].0.as_str()).collect();
        let written = texts.written(&model, prompt, &questions, &texts.greedy(), device)?;
        for (place, answer) in places.into_iter().zip(written) {
            measured.accuracy += accuracy_of(&asked[place].answers, &answer.text);
            measured.written.push((place, answer.text));
        }
        Ok(measured)
    }

    /// The same of a set, where each of the questions is asked of another of `images`, whose `features` these
    /// are.
    pub(super) fn measured_set<F: FnMut(&[usize]) -> Result<Tensor<3>>>(
        &self,
        (language, model, encoder): (&Language, &ModelSettings, &TextEncoder),
        asked: &[&Question],
        images: &[usize],
        features: &mut SetFeatures<F>,
    ) -> Result<Measured> {
        let mut all = Measured::default();
        for (number, (questions, images)) in asked.chunks(BATCH).zip(images.chunks(BATCH)).enumerate() {
            let texts: Vec<&str> = questions.iter().map(|question| question.text.as_str()).collect();
            let features = features.of(images)?;
            let device = features.device();
            let prompt = self.asked(features, model, encoder, &texts)?;
            let part = self.measured(language, &prompt, questions, &device)?;
            all.loss += part.loss;
            all.tokens += part.tokens;
            all.accuracy += part.accuracy;
            let first = number * BATCH;
            all.written.extend(part.written.into_iter().map(|(place, text)| (first + place, text)));
        }
        Ok(all)
    }
}

/// The rows of these numbers.
///
/// # Shapes
/// - rows `[b, queries, width]`; output `[places, queries, width]`
pub(super) fn selected(rows: Tensor<3>, places: &[usize]) -> Tensor<3> {
    let index: Vec<i32> = places.iter().map(|place| *place as i32).collect();
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [places.len()]), &rows.device());
    rows.select(0, index)
}
