//! What becomes of the image encoder in a stage.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of the image encoder in a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncoderTraining {
    /// It stays as it is.
    #[default]
    Frozen,
    /// It is trained with the rest, in float32.
    Trained,
}

impl fmt::Display for EncoderTraining {
    /// As a configuration names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frozen => "frozen",
            Self::Trained => "trained",
        })
    }
}

/// How a stage trains the image encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderSettings {
    /// Whether it does.
    pub training: EncoderTraining,
    /// The factor of the learning rate from each layer to the one below.
    pub layer_decay: f64,
    /// How often the last block's branches are left out for an image.
    pub drop_path: f64,
}

impl EncoderSettings {
    /// Of a stage that leaves it as it is.
    pub const FROZEN: Self = Self { training: EncoderTraining::Frozen, layer_decay: 1.0, drop_path: 0.0 };
}
