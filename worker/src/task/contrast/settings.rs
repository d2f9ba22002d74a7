//! The settings of the contrast task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::model::ModelSettings;
use crate::task::description::Unusable;

/// Contrastive, matching and captioning losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastSettings {
    /// Text length in tokens, with `[CLS]` and `[SEP]`.
    #[schemars(range(min = 3, max = 65_536))]
    pub text_length: usize,
    /// Initial temperature of the contrastive loss.
    #[schemars(range(min = 1e-4, max = 100.0))]
    pub temperature: f64,
    /// Keep the temperature inside [0.001, 0.5].
    pub clamp_temperature: bool,
    /// Label smoothing of the contrastive and captioning losses.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub label_smoothing: f64,
}

impl Default for ContrastSettings {
    fn default() -> Self {
        Self { text_length: 32, temperature: 0.07, clamp_temperature: true, label_smoothing: 0.1 }
    }
}

impl ContrastSettings {
    pub(in crate::task) fn what_is_unusable(&self, batch: u32, model: &ModelSettings) -> Option<Unusable> {
        let positions = model.qformer.max_positions;
        if batch < 2 {
            let reason = "contrast needs two pairs or more".into();
            return Some(Unusable { key: "batch", value: batch.to_string(), with: None, reason });
        }
        if self.text_length > positions {
            return Some(Unusable {
                key: "text_length",
                value: self.text_length.to_string(),
                with: Some("model.qformer.max_positions"),
                reason: format!("more than model.qformer.max_positions = {positions}"),
            });
        }
        None
    }
}
