//! The settings of the instruct task.

use blip2_model::blip2::asking::PLACE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::templates::Templates;
use crate::settings::lora::LoraSettings;
use crate::settings::model::ModelSettings;
use crate::task::adapters;
use crate::task::description::Unusable;

/// Instructions in changing words, which the Q-Former and the language model read, and what they ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InstructSettings {
    /// Weights of the first stage of pre-training, or of a model that reads questions, a path or URL: from
    /// them come the Q-Former's parts for texts, which weights of the second stage have not.
    pub text_half: String,
    /// Ways to put a question, each with `{}` for it; one is drawn for each sample. Empty: those of the
    /// program.
    pub question_templates: Vec<String>,
    /// Ways to ask for a caption, of which one is drawn for each sample whose row has no question. Empty:
    /// those of the program.
    pub caption_templates: Vec<String>,
    /// Tokens of an instruction, for the Q-Former and for the language model each; of one that is longer the
    /// first are left out.
    #[schemars(range(min = 4, max = 65_536))]
    pub instruction_length: usize,
    /// Tokens of what is asked for, with its end; of a text that is longer the last are left out.
    #[schemars(range(min = 2, max = 65_536))]
    pub output_length: usize,
    /// Dropout inside the frozen language model, at the rate of its own configuration, as the reference
    /// trains; off, the model is the same in training as in use.
    pub language_model_dropout: bool,
    /// Adapters of the language model (LoRA).
    #[serde(skip_serializing_if = "LoraSettings::is_unset")]
    pub lora: LoraSettings,
}

impl Default for InstructSettings {
    fn default() -> Self {
        Self {
            text_half: String::new(),
            question_templates: Vec::new(),
            caption_templates: Vec::new(),
            instruction_length: 128,
            output_length: 256,
            language_model_dropout: false,
            lora: LoraSettings::default(),
        }
    }
}

impl InstructSettings {
    pub(super) fn templates(&self) -> Templates {
        Templates::of(&self.question_templates, &self.caption_templates)
    }

    pub(super) fn what_is_unusable(&self, model: &ModelSettings) -> Option<Unusable> {
        let positions = model.qformer.max_positions;
        if self.instruction_length > positions {
            return Some(Unusable {
                key: "instruction_length",
                value: self.instruction_length.to_string(),
                with: Some("model.qformer.max_positions"),
                reason: format!("more than model.qformer.max_positions = {positions}"),
            });
        }
        let lists = [
            ("question_templates", &self.question_templates, 1),
            ("caption_templates", &self.caption_templates, 0),
        ];
        for (key, list, places) in lists {
            let is_odd =
                |template: &&String| template.matches(PLACE).count() != places || template.trim().is_empty();
            let Some(odd) = list.iter().find(is_odd) else { continue };
            let reason = match places {
                0 => format!("it must not be empty, nor have {PLACE}: there is no question to put there"),
                _ => format!("{PLACE}, where the question is put, must be there once"),
            };
            return Some(Unusable { key, value: format!("\"{odd}\""), with: None, reason });
        }
        adapters::unusable(&self.lora)
    }
}
