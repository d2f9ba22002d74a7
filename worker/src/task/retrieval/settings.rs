//! The settings of the retrieval task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::encoder::{EncoderSettings, EncoderTraining};
use crate::task::contrast::ContrastSettings;

/// The losses of contrast with images told apart by their ids, and the image encoder trained as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrievalSettings {
    /// Text length in tokens, with `[CLS]` and `[SEP]`.
    #[schemars(range(min = 3, max = 65_536))]
    pub text_length: usize,
    /// Temperature of the contrastive loss, where the run begins with this stage and weights give none.
    #[schemars(range(min = 1e-4, max = 100.0))]
    pub temperature: f64,
    /// Keep the temperature inside [0.001, 0.5].
    pub clamp_temperature: bool,
    /// Label smoothing of the contrastive and captioning losses.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub label_smoothing: f64,
    /// `trained`: the image encoder is trained as well, in float32; `frozen`: it stays as it is.
    pub image_encoder: EncoderTraining,
    /// Factor of the learning rate from each layer of a trained image encoder to the one below; 1: all have
    /// the same.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub layer_decay: f64,
    /// How often the branches of a trained image encoder's last block are left out for an image; linearly
    /// less often in the blocks below.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub drop_path: f64,
}

impl Default for RetrievalSettings {
    fn default() -> Self {
        let ContrastSettings { text_length, temperature, clamp_temperature, label_smoothing } =
            ContrastSettings::default();
        Self {
            text_length,
            temperature,
            clamp_temperature,
            label_smoothing,
            image_encoder: EncoderTraining::Trained,
            layer_decay: 1.0,
            drop_path: 0.0,
        }
    }
}

impl RetrievalSettings {
    /// What it has in common with contrast.
    pub(super) fn contrast(&self) -> ContrastSettings {
        let Self { text_length, temperature, clamp_temperature, label_smoothing, .. } = *self;
        ContrastSettings { text_length, temperature, clamp_temperature, label_smoothing }
    }

    /// How it trains the image encoder.
    pub(super) fn encoder_settings(&self) -> EncoderSettings {
        let Self { image_encoder: training, layer_decay, drop_path, .. } = *self;
        EncoderSettings { training, layer_decay, drop_path }
    }
}
