//! The settings of the vqa task.

use blip2_model::blip2::asking::{Asking, PLACE, QFormerReads};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::encoder::{EncoderSettings, EncoderTraining};
use crate::settings::lora::LoraSettings;
use crate::settings::model::ModelSettings;
use crate::task::adapters;
use crate::task::description::Unusable;

/// Which of a question's answers are trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnswerMode {
    /// One a time, drawn by how often it was given.
    #[default]
    Sample,
    /// All, each with the share of people who gave it as the factor of its loss, as BLIP has it.
    Weighted,
    /// The most frequent one.
    Majority,
}

/// What the Q-Former reads beside the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QFormerText {
    /// The question alone.
    #[default]
    Question,
    /// The prompt with the question, as the language model reads it.
    Prompt,
}

/// Answers to questions that the Q-Former reads too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VqaSettings {
    /// Weights of the first stage of pre-training, or of a model that reads questions, a path or URL: from
    /// them come the Q-Former's parts for texts, which weights of the second stage have not.
    pub text_half: String,
    /// What the language model reads, with `{}` for the question; empty: `Question: {} Answer:` for models
    /// that continue a text, `Question: {} Short answer:` for those with an encoder.
    pub prompt: String,
    /// What the Q-Former reads.
    pub qformer_text: QFormerText,
    /// Tokens that the Q-Former reads of a question, with `[CLS]` and `[SEP]`.
    #[schemars(range(min = 3, max = 65_536))]
    pub question_length: usize,
    /// Tokens of the prompt with its question; of a question that is longer the last words are left out.
    #[schemars(range(min = 2, max = 65_536))]
    pub prompt_length: usize,
    /// Tokens of an answer with its end.
    #[schemars(range(min = 2, max = 65_536))]
    pub answer_length: usize,
    /// Which of a question's answers are trained on.
    pub answers: AnswerMode,
    /// Answers that `weighted` trains on for each question of a slot, on average: the most frequent ones of
    /// all its questions come first, rarer ones are left out where there is no room.
    #[schemars(range(min = 1, max = 1000))]
    pub answer_rows: u32,
    /// Factor that `weighted` gives the answer of a question that one person alone answered.
    #[schemars(range(max = 1000.0), extend("exclusiveMinimum" = 0.0))]
    pub single_answer_weight: f64,
    /// Dropout inside the frozen language model, at the rate of its own configuration, as the reference
    /// trains; off, the model is the same in training as in use.
    pub language_model_dropout: bool,
    /// `frozen`: the image encoder stays as it is; `trained`: it is trained as well, in float32.
    pub image_encoder: EncoderTraining,
    /// Factor of the learning rate from each layer of a trained image encoder to the one below; 1: all have
    /// the same.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub layer_decay: f64,
    /// How often the branches of a trained image encoder's last block are left out for an image; linearly
    /// less often in the blocks below.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub drop_path: f64,
    /// Adapters of the language model (LoRA).
    #[serde(skip_serializing_if = "LoraSettings::is_unset")]
    pub lora: LoraSettings,
}

impl Default for VqaSettings {
    fn default() -> Self {
        Self {
            text_half: String::new(),
            prompt: String::new(),
            qformer_text: QFormerText::default(),
            question_length: 32,
            prompt_length: 64,
            answer_length: 12,
            answers: AnswerMode::default(),
            answer_rows: 4,
            single_answer_weight: 1.0,
            language_model_dropout: false,
            image_encoder: EncoderTraining::Frozen,
            layer_decay: 1.0,
            drop_path: 0.0,
            lora: LoraSettings::default(),
        }
    }
}

impl VqaSettings {
    /// How the model is asked, for its folder.
    pub(super) fn asking(&self, encoder_decoder: bool) -> Asking {
        let published = Asking::published(encoder_decoder);
        let qformer = match self.qformer_text {
            QFormerText::Question => QFormerReads::Question,
            QFormerText::Prompt => QFormerReads::Prompt,
        };
        match self.prompt.as_str() {
            "" => Asking { qformer, ..published },
            prompt => Asking { prompt: prompt.into(), qformer },
        }
    }

    /// How it trains the image encoder.
    pub(super) fn encoder_settings(&self) -> EncoderSettings {
        let Self { image_encoder: training, layer_decay, drop_path, .. } = *self;
        EncoderSettings { training, layer_decay, drop_path }
    }

    pub(super) fn what_is_unusable(&self, model: &ModelSettings) -> Option<Unusable> {
        let positions = model.qformer.max_positions;
        if self.question_length > positions {
            return Some(Unusable {
                key: "question_length",
                value: self.question_length.to_string(),
                with: Some("model.qformer.max_positions"),
                reason: format!("more than model.qformer.max_positions = {positions}"),
            });
        }
        let has_place = self.prompt.is_empty() || self.prompt.matches(PLACE).count() == 1;
        let place = (!has_place).then(|| Unusable {
            key: "prompt",
            value: format!("\"{}\"", self.prompt),
            with: None,
            reason: format!("{PLACE}, where the question is put, must be there once"),
        });
        place.or_else(|| adapters::unusable(&self.lora))
    }
}
