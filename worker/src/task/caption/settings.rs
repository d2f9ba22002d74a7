//! The settings of the caption task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::encoder::{EncoderSettings, EncoderTraining};
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

impl Default for CaptionSettings {
    fn default() -> Self {
        Self {
            text_length: 32,
            prompt: "a photo of".into(),
            language_model_dropout: false,
            image_encoder: EncoderTraining::Frozen,
            layer_decay: 1.0,
            drop_path: 0.0,
            lora: LoraSettings::default(),
        }
    }
}

impl CaptionSettings {
    /// How it trains the image encoder.
    pub(super) fn encoder_settings(&self) -> EncoderSettings {
        let Self { image_encoder: training, layer_decay, drop_path, .. } = *self;
        EncoderSettings { training, layer_decay, drop_path }
    }
}
