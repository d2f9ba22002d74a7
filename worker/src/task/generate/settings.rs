//! The settings of the generate task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::lora::LoraSettings;

/// Captioning through the frozen language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateSettings {
    /// Caption length in tokens.
    #[schemars(range(min = 2, max = 65_536))]
    pub text_length: usize,
    /// Text before every caption, without loss; empty in pre-training.
    pub prompt: String,
    /// Dropout inside the frozen language model, at the rate of its own configuration, as the reference
    /// trains; off, the model is the same in training as in use.
    pub language_model_dropout: bool,
    /// Adapters of the language model (LoRA).
    #[serde(skip_serializing_if = "LoraSettings::is_unset")]
    pub lora: LoraSettings,
}

impl Default for GenerateSettings {
    fn default() -> Self {
        Self {
            text_length: 32,
            prompt: String::new(),
            language_model_dropout: false,
            lora: LoraSettings::default(),
        }
    }
}
