//! The settings of the generate task.

use serde::{Deserialize, Serialize};

use crate::task::description::KeyRange::Whole;
use crate::task::description::TaskKey;

/// Captioning through the frozen language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateSettings {
    /// Caption length in tokens.
    pub text_length: usize,
    /// Text before every caption, without loss; empty in pre-training.
    pub prompt: String,
    /// Dropout inside the frozen language model, at the rate of its own configuration, as the reference
    /// trains; off, the model is the same in training as in use.
    pub language_model_dropout: bool,
}

impl Default for GenerateSettings {
    fn default() -> Self {
        Self { text_length: 32, prompt: String::new(), language_model_dropout: false }
    }
}

pub(super) const KEYS: &[TaskKey] = &[
    TaskKey { key: "text_length", about: "Caption length in tokens.", range: Some(Whole(2, 65_536)) },
    TaskKey {
        key: "prompt",
        about: "Text before every caption, without loss; empty in pre-training.",
        range: None,
    },
    TaskKey {
        key: "language_model_dropout",
        about: "Dropout inside the frozen language model at its own rate, as the reference trains.",
        range: None,
    },
];
