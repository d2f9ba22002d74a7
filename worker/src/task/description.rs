//! A task as a configuration has it: its losses, its texts, its keys, the models it needs.

use std::fmt;

use blip2_dataset::corpus::columns::ColumnNames;

use super::export::Layout;
use super::scores::Measure;
use crate::settings::lora::LoraSettings;
use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;

/// A loss that a task's steps report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossName {
    /// In metrics, status and checkpoints.
    pub name: &'static str,
    /// The same of held-out rows.
    pub held_out: &'static str,
    /// In words, for charts.
    pub title: &'static str,
}

/// A [`LossName`] of a name and its words.
macro_rules! loss {
    ($name:literal, $title:literal) => {
        $crate::task::LossName { name: $name, held_out: concat!("eval_", $name), title: $title }
    };
}
pub(crate) use loss;

/// Whether a stage begins from a BERT where the configuration names one, and reads a language model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// `model.qformer_init`, where the run begins with the task.
    pub bert: bool,
    /// `model.qformer_tokenizer`.
    pub qformer_tokenizer: bool,
    /// `model.language_model`.
    pub language_model: bool,
}

/// What a step of a task passes through its models for a pair, in tokens, padding among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// Losses of images and texts, each with those of the whole batch.
    Contrast {
        /// Tokens of a text.
        text: usize,
    },
    /// Losses of texts through the language model.
    Language {
        /// Tokens that the queries read beside the image.
        asked: usize,
        /// Tokens that a decoder reads before each text, and what an encoder does.
        read: [usize; 2],
        /// Texts of a pair, at most.
        texts: usize,
        /// Tokens of each.
        written: usize,
    },
}

/// A setting of a task that no run can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The key within the stage.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// Another key it has to do with, from the root.
    pub with: Option<&'static str>,
    /// Why.
    pub reason: String,
}

/// A task as a configuration has it.
pub trait Task: fmt::Debug + Send + Sync {
    /// In configurations, checkpoints and messages.
    fn name(&self) -> &'static str;

    /// What it is, for the title of a chart.
    fn title(&self) -> &'static str;

    /// The losses that its steps report, their sum first.
    fn losses(&self) -> &'static [LossName];

    /// Global batch where none is given.
    fn default_batch(&self) -> u32;

    /// Optimizer where none is given.
    fn default_optimizer(&self) -> OptimizerSettings;

    /// Settings that go with no model, for a global batch of `batch`.
    fn unusable(&self, batch: u32, model: &ModelSettings) -> Option<Unusable>;

    /// The models besides the image encoder and the Q-Former.
    fn needs(&self) -> Needs;

    /// Tokens of a text.
    fn text_length(&self) -> usize;

    /// What a step passes through the models.
    fn passes(&self) -> Passes;

    /// Text before every caption where the task writes some; empty otherwise.
    fn prompt(&self) -> &str {
        ""
    }

    /// Whether the other pairs of a batch are its counter-examples, so that an image should be in it once.
    fn contrasts(&self) -> bool {
        false
    }

    /// Whether the image encoder is trained as well.
    fn trains_encoder(&self) -> bool {
        false
    }

    /// Whether it reads questions with their answers, and no captions.
    fn asks(&self) -> bool {
        false
    }

    /// Whether a row without a question is one of captions to it, where it reads questions.
    fn reads_captions_too(&self) -> bool {
        false
    }

    /// The columns that it reads: questions are nothing to a task that reads captions.
    fn columns(&self, all: &ColumnNames) -> ColumnNames {
        match (self.asks(), self.reads_captions_too()) {
            (true, true) => all.with_captions_too(),
            (true, false) => all.clone(),
            (false, _) => all.without_questions(),
        }
    }

    /// The adapters of the language model, where it trains some.
    fn lora(&self) -> Option<&LoraSettings> {
        None
    }

    /// Whether it begins with trained parameters alone.
    fn continues(&self) -> bool {
        false
    }

    /// How an end of the stage is measured on held-out images.
    fn measure(&self) -> Measure;

    /// The published layouts that its checkpoints can be written in.
    fn layouts(&self) -> &'static [Layout];
}
