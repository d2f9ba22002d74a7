//! The settings of the caption task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::lora::LoraSettings;

/// Fine-tuning on captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionSettings {
    /// Caption length in tokens, with the prompt where a decoder continues it.
    #[schemars(range(min = 2, max = 65_536))]
    pub text_length: usize,
    /// Text before every caption, without loss: a decoder continues it, an encoder reads it.
    pub prompt: String,
    /// Dropout inside the frozen language model, at the rate of its own configuration, as the reference
    /// trains; off, the model is the same in training as in use.
    pub language_model_dropout: bool,
    /// Adapters of the language model (LoRA).
    #[serde(skip_serializing_if = "LoraSettings::is_unset")]
    pub lora: LoraSettings,
}

impl Default for CaptionSettings {
    fn default() -> Self {
        Self {
            text_length: 32,
            prompt: "a photo of".into(),
            language_model_dropout: false,
            lora: LoraSettings::default(),
        }
    }
}
