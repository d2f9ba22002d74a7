//! A task as a worker trains it: the tensors that are trained, and the gradient of a step.

use std::fmt;
use std::sync::Arc;

use blip2_dataset::text::TextEncoder;
use blip2_evaluation::held_out::{HeldOut, HeldOutRow};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{WeightSource, is_of_adapter};
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::placed::PlacedTensors;
use burn::tensor::Device;

use super::export::{ExportTarget, Layout};
use super::scores::{EvaluationSet, QuestionSet, Scores};
use crate::error::{Result, WorkerError};
use crate::frozen_models::{FrozenModels, FrozenSizes};
use crate::language::{GeneratedAnswer, LanguageTexts};
use crate::settings::model::ModelSettings;
use crate::settings::train::StepSettings;
use crate::sum::context::{Computed, Step, StepSum, StepValues};
use crate::sum::times::Stopwatch;
use crate::sum::unit_buffers::UnitBuffers;

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
    /// Whether a tensor may begin anew where a stage continues from another task's; adapters always may: they
    /// begin as nothing.
    pub(crate) fn may_begin_anew(&self, tensor: &str) -> bool {
        is_of_adapter(tensor) || self.own.iter().any(|start| tensor.starts_with(start))
    }
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

    /// Weights of the first stage of pre-training, for the tensors that those of the second lack; empty where
    /// none are named, and nothing where the task has no such tensors.
    fn text_half(&self) -> Option<&str> {
        None
    }

    /// Names them by another path, where the task has such tensors.
    fn place_text_half(&mut self, _path: String) {}
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
    fn check_bert(&mut self, _bert: &WeightSource) -> Result<(), ModelError> {
        Ok(())
    }

    /// A parameter that is kept within bounds.
    fn bounded(&self) -> Option<Bounded> {
        None
    }

    /// What the learning rate of the tensor of this name is multiplied by: above 0 and at most 1.
    fn learning_rate_scale(&self, _tensor: &str) -> f64 {
        1.0
    }

    /// The place among a slot's values of the number by whose sum the gradient is divided.
    fn divisor(&self) -> Option<usize>;

    /// The gradient of the global batch's loss, summed over all slots, and the values to report.
    fn gradient(&mut self, step: &Step<'_>, sum: StepSum<'_>, watch: &mut Stopwatch) -> Result<Computed>;

    /// Passes a slot of so many rows of nothing forward, and a gradient back.
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

    /// Answers questions, each on the image that it is about.
    fn answers(&self, _set: &QuestionSet<'_>) -> Result<Vec<GeneratedAnswer>> {
        Err(WorkerError::Protocol("a task that answers no questions is asked one".into()))
    }

    /// Writes the model, with the frozen ones, in a published layout.
    fn export(&mut self, layout: Layout, target: ExportTarget<'_>) -> Result<()>;
}
