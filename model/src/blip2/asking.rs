//! How a model whose Q-Former reads questions is asked.

use serde::{Deserialize, Serialize};

use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;

/// Where a prompt has the question.
pub const PLACE: &str = "{}";

/// The paper's prompt for a language model that continues a text.
pub const CONTINUED: &str = "Question: {} Answer:";

/// The paper's prompt for a language model that answers what an encoder reads.
pub const READ: &str = "Question: {} Short answer:";

/// What the Q-Former reads beside the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QFormerReads {
    /// The question alone.
    Question,
    /// What the language model reads, as InstructBLIP's does.
    #[default]
    Prompt,
}

/// How a model was asked in training. Folders say so in `config.json`, under names that `transformers` does
/// not have; published ones do not say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// What the language model reads, with [`PLACE`] for the question.
    #[serde(rename = "question_prompt")]
    pub prompt: String,
    /// What the Q-Former reads, where it reads questions.
    #[serde(rename = "qformer_reads")]
    pub qformer: QFormerReads,
}

impl Asking {
    /// With the paper's prompt for the kind of language model.
    pub fn published(encoder_decoder: bool) -> Self {
        let prompt = if encoder_decoder { READ } else { CONTINUED };
        Self { prompt: prompt.into(), qformer: QFormerReads::default() }
    }

    /// What a folder says, or as published.
    pub(super) fn read(config: &FolderConfig, encoder_decoder: bool) -> Result<Self, ModelError> {
        #[derive(Deserialize)]
        struct Said {
            question_prompt: Option<String>,
            #[serde(default)]
            qformer_reads: QFormerReads,
        }
        let Said { question_prompt, qformer_reads } = config.parse()?;
        let Self { prompt, .. } = Self::published(encoder_decoder);
        let prompt = question_prompt.unwrap_or(prompt);
        if prompt.matches(PLACE).count() != 1 {
            return Err(config.error(format!("question_prompt: {PLACE} must be there once")));
        }
        Ok(Self { prompt, qformer: qformer_reads })
    }

    /// The prompt with a question.
    pub fn prompt_of(&self, question: &str) -> String {
        self.prompt.replacen(PLACE, question, 1)
    }
}
