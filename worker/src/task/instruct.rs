//! Instruct: instructions in changing words, which the Q-Former and the frozen language model read alike, and
//! what they ask for: a question's answer, or a caption where a row has no question. The step is that of
//! questions. The image encoder stays frozen.

mod settings;
mod templates;

pub use settings::InstructSettings;

use std::sync::Arc;

use blip2_dataset::text::TextEncoder;
use burn::tensor::Device;

use self::templates::Templates;
use super::description::{LossName, Needs, Passes, Task, Unusable};
use super::export::Layout;
use super::generate;
use super::language_step::Draws;
use super::scores::Measure;
use super::training::{ModelShape, TaskModel, Trainable, WeightNames};
use super::vqa::{self, DrawKey, VqaSettings, VqaTask, Worded, Wording};
use crate::error::Result;
use crate::frozen_models::FrozenModels;
use crate::language::LanguageTexts;
use crate::open::qformer_text;
use crate::settings::lora::LoraSettings;
use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;

/// What dropout is drawn for.
const DRAWS: Draws = Draws {
    qformer: "dropout beside instructions",
    language: "dropout of the language model of instructions",
    adapters: "dropout of adapters of instructions",
};

impl Task for InstructSettings {
    fn name(&self) -> &'static str {
        "instruct"
    }

    fn title(&self) -> &'static str {
        "loss of what instructions ask for"
    }

    fn losses(&self) -> &'static [LossName] {
        vqa::LOSSES
    }

    fn default_batch(&self) -> u32 {
        128
    }

    fn default_optimizer(&self) -> OptimizerSettings {
        OptimizerSettings::fine_tuning()
    }

    fn unusable(&self, _: u32, model: &ModelSettings) -> Option<Unusable> {
        self.what_is_unusable(model)
    }

    fn needs(&self) -> Needs {
        Needs { bert: false, qformer_tokenizer: true, language_model: true }
    }

    fn text_length(&self) -> usize {
        self.instruction_length
    }

    fn passes(&self) -> Passes {
        let asked = self.instruction_length;
        Passes::Language { asked, read: [asked; 2], texts: 1, written: self.output_length }
    }

    fn asks(&self) -> bool {
        true
    }

    fn reads_captions_too(&self) -> bool {
        true
    }

    fn continues(&self) -> bool {
        true
    }

    fn lora(&self) -> Option<&LoraSettings> {
        Some(&self.lora).filter(|lora| lora.is_on())
    }

    fn measure(&self) -> Measure {
        Measure::Answers
    }

    fn layouts(&self) -> &'static [Layout] {
        generate::layouts(&self.lora)
    }
}

impl Trainable for InstructSettings {
    fn language_texts<'a>(&'a self, stage: u32, name: &'a str) -> Option<LanguageTexts<'a>> {
        let (text_length, answer_length) = (self.instruction_length, Some(self.output_length));
        Some(LanguageTexts { stage, name, prompt: "", text_length, answer_length, instructed: true })
    }

    /// Of what the loader cuts into tokens only whether it has any is looked at: words are drawn later.
    fn encoder(&self, frozen: &FrozenModels, _: u32) -> Result<Arc<TextEncoder>> {
        Ok(qformer_text(&frozen.model, self.instruction_length)?.0)
    }

    fn model(&self, shape: &ModelShape<'_>, device: &Device) -> Result<Box<dyn TaskModel>> {
        let key = DrawKey { seed: shape.train.seed, stage: shape.stage };
        let wording = Box::new(TemplateWording { templates: self.templates(), key });
        let worded = Worded::new(wording, self.instruction_length);
        let settings = VqaSettings {
            question_length: self.instruction_length,
            prompt_length: self.instruction_length,
            answer_length: self.output_length,
            language_model_dropout: self.language_model_dropout,
            lora: self.lora.clone(),
            ..VqaSettings::default()
        };
        Ok(Box::new(VqaTask::new(shape, settings, DRAWS, Some(worded), device)?))
    }

    fn weight_names(&self) -> WeightNames {
        vqa::WEIGHTS
    }

    fn text_half(&self) -> Option<&str> {
        Some(&self.text_half)
    }

    fn place_text_half(&mut self, path: String) {
        self.text_half = path;
    }
}

/// Words drawn from lists.
#[derive(Debug)]
struct TemplateWording {
    templates: Templates,
    key: DrawKey,
}

impl Wording for TemplateWording {
    fn drawn(&self, question: &str, sample: u64) -> String {
        self.templates.drawn(question, self.key, sample)
    }

    fn held_out(&self, question: &str) -> String {
        self.templates.first(question)
    }

    fn prompt(&self) -> &str {
        self.templates.of_question()
    }
}
