//! The settings of adapters of the frozen language model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Adapters of the frozen language model's maps (LoRA), which are trained with the Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSettings {
    /// Rank of the adapters of the language model (LoRA); 0: there are none.
    #[schemars(range(min = 0, max = 4096), extend("x-stored-if-set" = true))]
    pub rank: usize,
    /// What the adapters add is multiplied by this over the rank.
    #[schemars(range(max = 1_000_000.0), extend("exclusiveMinimum" = 0.0, "x-stored-if-set" = true))]
    pub alpha: f64,
    /// Dropout of what the adapters read.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "x-stored-if-set" = true))]
    pub dropout: f64,
    /// The maps of the language model's layers that are adapted, such as `q_proj`; empty: those of queries
    /// and values.
    #[schemars(extend("x-stored-if-set" = true))]
    pub targets: Vec<String>,
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self { rank: 0, alpha: 32.0, dropout: 0.05, targets: Vec::new() }
    }
}

impl LoraSettings {
    /// Whether nothing is set: then nothing is stored, and a run has the hash that it had before there were
    /// adapters.
    pub(crate) fn is_unset(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there are adapters.
    pub(crate) fn is_on(&self) -> bool {
        self.rank > 0
    }

    /// Whether adapters of `other` are these, so that a stage goes on with them.
    pub(crate) fn continues(&self, other: &Self) -> bool {
        let shape = |lora: &Self| (lora.rank, lora.alpha.to_bits(), lora.targets.clone());
        shape(self) == shape(other)
    }
}
