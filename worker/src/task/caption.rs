//! Caption: fine-tuning on captions behind a prompt, from the parameters of the generate task, whose step and
//! model these are. The image encoder stays frozen, or is trained as well.

mod settings;

pub use settings::CaptionSettings;

use std::sync::Arc;

use blip2_dataset::text::TextEncoder;
use burn::tensor::Device;

use super::adapters;
use super::description::{LossName, Needs, Passes, Task, Unusable};
use super::export::Layout;
use super::generate::{self, GenerateTask};
use super::image_encoder::TaskEncoder;
use super::language_step::Draws;
use super::scores::Measure;
use super::training::{ModelShape, TaskModel, Trainable, WeightNames};
use crate::error::Result;
use crate::frozen_models::FrozenModels;
use crate::language::LanguageTexts;
use crate::settings::encoder::EncoderTraining;
use crate::settings::lora::LoraSettings;
use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;

/// What dropout is drawn for.
const DRAWS: Draws = Draws {
    qformer: "dropout of captions",
    language: "dropout of the language model of captions",
    adapters: "dropout of adapters of captions",
};

impl Task for CaptionSettings {
    fn name(&self) -> &'static str {
        "caption"
    }

    fn title(&self) -> &'static str {
        "loss of captions behind a prompt"
    }

    fn losses(&self) -> &'static [LossName] {
        generate::LOSSES
    }

    fn default_batch(&self) -> u32 {
        256
    }

    fn default_optimizer(&self) -> OptimizerSettings {
        OptimizerSettings::fine_tuning()
    }

    fn unusable(&self, _: u32, _: &ModelSettings) -> Option<Unusable> {
        adapters::unusable(&self.lora)
    }

    fn needs(&self) -> Needs {
        Needs { bert: false, qformer_tokenizer: false, language_model: true }
    }

    fn text_length(&self) -> usize {
        self.text_length
    }

    fn passes(&self) -> Passes {
        let written = self.text_length;
        // A decoder's prompt is part of its text; an encoder reads the caption's first part, or the prompt.
        Passes::Language { asked: 0, read: [0, written], texts: 1, written }
    }

    fn prompt(&self) -> &str {
        &self.prompt
    }

    fn continues(&self) -> bool {
        true
    }

    fn lora(&self) -> Option<&LoraSettings> {
        Some(&self.lora).filter(|lora| lora.is_on())
    }

    fn trains_encoder(&self) -> bool {
        self.image_encoder == EncoderTraining::Trained
    }

    fn measure(&self) -> Measure {
        Measure::Captions
    }

    fn layouts(&self) -> &'static [Layout] {
        generate::layouts(&self.lora)
    }
}

impl Trainable for CaptionSettings {
    fn language_texts<'a>(&'a self, stage: u32, name: &'a str) -> Option<LanguageTexts<'a>> {
        let (prompt, text_length) = (&self.prompt, self.text_length);
        Some(LanguageTexts { stage, name, prompt, text_length, answer_length: None, instructed: false })
    }

    fn encoder(&self, frozen: &FrozenModels, stage: u32) -> Result<Arc<TextEncoder>> {
        Ok(frozen.language()?.captions(stage)?.encoder())
    }

    fn model(&self, shape: &ModelShape<'_>, device: &Device) -> Result<Box<dyn TaskModel>> {
        let encoder = TaskEncoder::new(self.encoder_settings(), shape, device)?;
        let through = (self.language_model_dropout, &self.lora);
        Ok(Box::new(GenerateTask::new(shape, encoder, through, DRAWS, device)?))
    }

    /// Everything is trained already: nothing begins anew.
    fn weight_names(&self) -> WeightNames {
        WeightNames { own: &[], init_is_whole: true, ..generate::WEIGHTS }
    }
}
