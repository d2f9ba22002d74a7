//! What a stage of a run does: its task, one file each.
//!
//! A [`Task`] is a task as a configuration has it: its losses, its texts, the models it needs. It makes a
//! `TaskModel`, which holds the tensors that are trained and computes the gradient of a step. Nothing
//! outside a task's file asks which task it is.

pub mod contrast;
pub(crate) mod export;
pub mod generate;
pub mod scores;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use blip2_dataset::text::TextEncoder;
use blip2_evaluation::held_out::{HeldOut, HeldOutRow};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::placed::PlacedTensors;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::contrast::ContrastSettings;
use self::export::{ExportTarget, Layout};
use self::generate::GenerateSettings;
use self::scores::{EvaluationSet, Measure, Scores};
use crate::error::Result;
use crate::frozen_models::{FrozenModels, FrozenSizes};
use crate::language::LanguageTexts;
use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;
use crate::settings::train::StepSettings;
use crate::sum::context::{Computed, Step, StepSum, StepValues};
use crate::sum::times::Stopwatch;
use crate::sum::unit_buffers::UnitBuffers;

/// Declares the tasks, a line each: its variant and its settings, whose [`Task::name`] is the variant in
/// snake case.
macro_rules! tasks {
    ($($(#[$about:meta])* $task:ident($settings:ty),)*) => {
        /// The task of a stage with its settings, which the key `task` names.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "task", rename_all = "snake_case")]
        pub enum TaskSettings {
            $($(#[$about])* $task($settings),)*
        }

        impl TaskSettings {
            /// Every task with the settings it has where none are given, in the order in which pre-training
            /// has them.
            pub fn known() -> Vec<Self> {
                vec![$(Self::$task(<$settings>::default()),)*]
            }
        }

        impl TaskSettings {
            /// The task as a worker trains it.
            pub(crate) fn trained(&self) -> &dyn Trainable {
                match self {
                    $(Self::$task(settings) => settings,)*
                }
            }
        }

        impl Deref for TaskSettings {
            type Target = dyn Task;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$task(settings) => settings,)*
                }
            }
        }
    };
}

tasks! {
    /// Representation learning: contrastive, matching and captioning losses.
    Contrast(ContrastSettings),
    /// Generative learning: captioning through the frozen language model.
    Generate(GenerateSettings),
}

impl TaskSettings {
    /// The task of this name, with the settings it has where none are given.
    ///
    /// # Errors
    /// There is no such task: the error names those there are.
    pub fn named(name: &str) -> Result<Self, UnknownTask> {
        let known = Self::known();
        let names = known.iter().map(|task| format!("`{}`", task.name())).collect::<Vec<_>>().join(", ");
        let found = known.into_iter().find(|task| task.name() == name);
        found.ok_or_else(|| UnknownTask { name: name.to_owned(), known: names })
    }
}

/// A name that no task has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no task; there are {known}")]
pub struct UnknownTask {
    /// The name.
    pub name: String,
    /// Those there are.
    pub known: String,
}

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

/// What published or stored weights of a task look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightNames {
    /// A tensor that all weights of the task have, and those of the tasks before it have not.
    pub(crate) mark: &'static str,
    /// Beginnings of names of tensors that published weights may lack.
    pub(crate) not_published: &'static [&'static str],
    /// Patterns of tensors that published weights may have besides.
    pub(crate) unused: &'static [&'static str],
    /// Beginnings of names of tensors that may begin anew where a stage continues from another task's.
    pub(crate) own: &'static [&'static str],
    /// Whether a run that begins with the task takes all its tensors from `model.init_checkpoint`; else those
    /// that are there.
    pub(crate) init_is_whole: bool,
}

impl WeightNames {
    /// Whether a tensor may begin anew where a stage continues from another task's.
    pub(crate) fn may_begin_anew(&self, tensor: &str) -> bool {
        self.own.iter().any(|start| tensor.starts_with(start))
    }
}

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

    /// Text before every caption where the task writes some; empty otherwise.
    fn prompt(&self) -> &str;

    /// Whether the other pairs of a batch are its counter-examples, so that an image should be in it once.
    fn contrasts(&self) -> bool;

    /// How an end of the stage is measured on held-out images.
    fn measure(&self) -> Measure;

    /// The published layouts that its checkpoints can be written in.
    fn layouts(&self) -> &'static [Layout];
}

/// A task as a worker trains it.
pub(crate) trait Trainable {
    /// How captions become texts of the language model, if the stage of this number and name is trained
    /// through one.
    fn language_texts<'a>(&'a self, stage: u32, name: &'a str) -> Option<LanguageTexts<'a>>;

    /// What the loader makes of captions, in the stage of this number.
    fn encoder(&self, frozen: &FrozenModels, stage: u32) -> Result<Arc<TextEncoder>>;

    /// A model of zeros, whose products are computed as `train.compute` says.
    fn model(&self, shape: &ModelShape<'_>, device: &Device) -> Result<Box<dyn TaskModel>>;

    /// What its weights look like.
    fn weight_names(&self) -> WeightNames;
}

/// What a task's model is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelShape<'a> {
    /// The stage's number in the list, from 1: it is part of the keys of random draws.
    pub(crate) stage: u32,
    /// Seed and gradient mode.
    pub(crate) train: &'a StepSettings,
    /// The Q-Former's sizes.
    pub(crate) model: &'a ModelSettings,
    /// Sizes that come from the frozen models.
    pub(crate) sizes: FrozenSizes,
}

/// The tensors of a model as one flat buffer, whatever the model.
pub(crate) trait TrainedTensors {
    /// Places of the tensors in the buffer.
    fn layout(&mut self) -> Result<FlatLayout>;

    /// Their values.
    fn read(&mut self, layout: &FlatLayout) -> Result<Vec<f32>>;

    /// Gives them values.
    fn write(&mut self, layout: &FlatLayout, values: &[f32], device: &Device) -> Result<()>;

    /// Gives them values that are on the device already.
    fn install(&mut self, layout: &FlatLayout, placed: PlacedTensors) -> Result<()>;
}

impl<M: NamedTensors> TrainedTensors for M {
    fn layout(&mut self) -> Result<FlatLayout> {
        Ok(FlatLayout::of(self)?)
    }

    fn read(&mut self, layout: &FlatLayout) -> Result<Vec<f32>> {
        Ok(layout.read(self)?)
    }

    fn write(&mut self, layout: &FlatLayout, values: &[f32], device: &Device) -> Result<()> {
        Ok(layout.write(self, values, device)?)
    }

    fn install(&mut self, layout: &FlatLayout, placed: PlacedTensors) -> Result<()> {
        Ok(placed.install(layout, self)?)
    }
}

/// A parameter that is kept within bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounded {
    pub(crate) tensor: &'static str,
    pub(crate) bounds: (f32, f32),
}

/// A task's model, and what a step does with it.
pub(crate) trait TaskModel: fmt::Debug + Send {
    /// What is trained.
    fn tensors(&mut self) -> &mut dyn TrainedTensors;

    /// The values before a run's first step: random, keyed by `seed`, or BERT's.
    fn initialise(
        &mut self,
        seed: u64,
        bert: Option<&WeightSource>,
        device: &Device,
    ) -> Result<(), ModelError>;

    /// Requires that [`TaskModel::initialise`] would find what it takes from `bert`; no values are read.
    fn check_bert(&mut self, bert: &WeightSource) -> Result<(), ModelError>;

    /// A parameter that is kept within bounds.
    fn bounded(&self) -> Option<Bounded>;

    /// The place among a slot's values of the number by whose sum the gradient is divided.
    fn divisor(&self) -> Option<usize>;

    /// The gradient of the global batch's loss, summed over all slots, and the values to report.
    fn gradient(&mut self, step: &Step<'_>, sum: StepSum<'_>, watch: &mut Stopwatch) -> Result<Computed>;

    /// Passes a slot of so many rows of nothing forward.
    fn warm_up(&self, frozen: &FrozenModels, rows: usize) -> Result<()>;

    /// What a member tells of unit `unit` of the held-out rows.
    fn held_out_unit(&self, frozen: &FrozenModels, unit: usize, rows: &[HeldOutRow]) -> Result<Vec<u8>>;

    /// The numbers of all held-out rows, from what the members told of their units.
    fn held_out_values(
        &self,
        frozen: &FrozenModels,
        held_out: &HeldOut,
        told: &mut UnitBuffers<'_>,
    ) -> Result<StepValues>;

    /// Measures the model on held-out images.
    fn scores(&self, set: &EvaluationSet<'_>) -> Result<Scores>;

    /// Writes the model, with the frozen ones, in a published layout.
    fn export(&mut self, layout: Layout, target: ExportTarget<'_>) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_task_is_refused_with_those_there_are() {
        let error = TaskSettings::named("segment").unwrap_err().to_string();
        assert!(error.contains("`segment`") && error.contains("`contrast`, `generate`"), "{error}");
    }

    #[test]
    fn a_task_is_read_by_the_name_it_gives_itself() {
        for task in TaskSettings::known() {
            let written = serde_json::to_value(&task).unwrap();
            assert_eq!(written["task"], task.name());
            assert_eq!(serde_json::from_value::<TaskSettings>(written).unwrap(), task);
            assert_eq!(TaskSettings::named(task.name()).unwrap(), task);
        }
    }

    #[test]
    fn the_names_of_a_tasks_losses_differ_and_begin_with_their_sum() {
        for task in TaskSettings::known() {
            let names: std::collections::BTreeSet<&str> =
                task.losses().iter().map(|loss| loss.name).collect();
            assert_eq!((names.len(), task.losses()[0].name), (task.losses().len(), "loss"));
        }
    }
}
