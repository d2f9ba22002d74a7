//! How an end of a stage is measured on held-out images.

use blip2_dataset::corpus::samples::Sample;
use blip2_evaluation::caption_loss::CaptionLosses;
use blip2_evaluation::retrieval::Retrieval;
use blip2_evaluation::sample_encoder::SampleEncoder;
use blip2_images::RgbImage;
use blip2_model::language::generation::GenerateOptions;

use crate::error::{Result, WorkerError};
use crate::language::Language;
use crate::settings::model::ModelSettings;
use crate::settings::train::StepSettings;

/// What is measured of a task's model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// [`Scores::Retrieval`].
    Retrieval,
    /// [`Scores::Captions`].
    Captions,
    /// [`Scores::Answers`].
    Answers,
}

/// What a model's answers to questions are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerScores {
    /// Mean loss of a token of the most frequent answer.
    pub loss: f64,
    /// Mean accuracy of the answers that the model writes, 0 to 1: that of VQA, or right and wrong where
    /// fewer than four people answered.
    pub accuracy: f64,
    /// The same with another question's image.
    pub shuffled: f64,
    /// How many questions.
    pub questions: usize,
    /// What the model wrote for each of them.
    pub written: Vec<SampleAnswer>,
}

/// An answer that a model wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleAnswer {
    /// Which of the samples was asked about.
    pub sample: usize,
    /// The answer.
    pub text: String,
}

/// The numbers of a task's model.
#[derive(Debug, Clone, PartialEq)]
pub enum Scores {
    /// Image-to-text retrieval by the contrastive similarity.
    Retrieval(Retrieval),
    /// Losses of captions through the frozen language model.
    Captions(CaptionLosses),
    /// Answers written by the frozen language model.
    Answers(AnswerScores),
}

/// Held-out images, and the frozen models that look at them.
pub(crate) struct EvaluationSet<'a> {
    pub(crate) train: &'a StepSettings,
    pub(crate) model: &'a ModelSettings,
    pub(crate) images: &'a SampleEncoder,
    pub(crate) samples: &'a [Sample],
    /// Present where the task needs it.
    pub(crate) language: Option<&'a Language>,
}

impl<'a> EvaluationSet<'a> {
    /// The language model.
    ///
    /// # Errors
    /// The task says that it needs none.
    pub(crate) fn language(&self) -> Result<&'a Language> {
        self.language.ok_or_else(|| WorkerError::Protocol("an evaluation without a language model".into()))
    }
}

/// Questions on images.
pub(crate) struct QuestionSet<'a> {
    pub(crate) model: &'a ModelSettings,
    pub(crate) language: &'a Language,
    /// The frozen image encoder.
    pub(crate) encoder: &'a SampleEncoder,
    pub(crate) images: &'a [RgbImage],
    /// Which image each question is about.
    pub(crate) places: &'a [usize],
    pub(crate) questions: &'a [&'a str],
    /// End tokens are those of the stage's answers.
    pub(crate) search: &'a GenerateOptions,
    /// Questions answered at a time, one at least.
    pub(crate) batch: usize,
}
