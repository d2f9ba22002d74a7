//! The step of tasks that are trained through the frozen language model: a slot needs no other slot, so the
//! losses of the own ones are computed and differentiated one after the other.

use blip2_dataset::loader::SlotBatch;
use blip2_model::language::Texts;
use blip2_model::objectives::generate::GenerateModel;
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::loss::Loss;
use blip2_tensors::train::tape::Tape;
use burn::tensor::Tensor;

use super::image_encoder::TaskEncoder;
use crate::error::Result;
use crate::sum::context::{Step, StepSum};
use crate::sum::landing::Landed;
use crate::sum::times::Stopwatch;

/// What a task's dropout is drawn for: no two tasks share their masks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draws {
    /// Of the Q-Former.
    pub(super) qformer: &'static str,
    /// Of the language model.
    pub(super) language: &'static str,
    /// Of what the language model's adapters read.
    pub(super) adapters: &'static str,
}

/// How the language model takes part in training.
#[derive(Debug, Clone, Copy)]
pub(super) struct LanguageTraining {
    /// Whether its own dropout is on; off, it is the same in training as in use.
    pub(super) model_dropout: bool,
    /// Dropout of what its adapters read.
    pub(super) adapter_dropout: f64,
    pub(super) draws: Draws,
}

impl LanguageTraining {
    /// The loss of a slot's texts behind soft prompts, through the language model with `model`'s adapters.
    pub(super) fn loss(
        &self,
        model: &GenerateModel,
        soft_prompts: Tensor<3>,
        texts: &Texts<'_>,
        (step, slot): (&Step<'_>, &SlotBatch),
    ) -> Result<Loss> {
        let language_model = &step.frozen.language()?.model;
        let dropout =
            |probability, drawn_for| step.frozen.dropout_of(probability, drawn_for, step.number, slot.slot);
        let mut of_adapters = dropout(self.adapter_dropout, self.draws.adapters);
        let adapted = model.adapted(language_model, &mut of_adapters)?;
        let probability = if self.model_dropout { language_model.dropout() } else { 0.0 };
        let mut dropout = dropout(probability, self.draws.language);
        Ok(adapted.training_loss(Some(soft_prompts), texts, &mut dropout, &step.frozen.device)?)
    }
}

/// A slot's loss, and the values that are summed with it.
pub(super) struct SlotLoss {
    pub(super) loss: Loss,
    /// Behind the loss's own value.
    pub(super) others: Vec<f32>,
}

/// A task whose slots have losses of their own.
pub(super) trait SlotLosses: NamedTensors {
    /// What looks at the images.
    fn encoder(&self) -> &TaskEncoder;

    /// A slot's loss, of its images' features.
    fn slot_loss(
        &self,
        step: &Step<'_>,
        slot: &SlotBatch,
        features: Tensor<3>,
        tape: &mut Tape,
    ) -> Result<SlotLoss>;
}

/// The sum of the slots' values and gradients.
pub(super) fn sum_of_slots(
    task: &mut impl SlotLosses,
    step: &Step<'_>,
    sum: StepSum<'_>,
    watch: &mut Stopwatch,
) -> Result<Landed> {
    sum.of_slots(step, watch, |sums, watch| {
        for slot in &step.batch.slots {
            let mut tape = Tape::segmented();
            let (features, pass) = task.encoder().encode_slot(step, slot, watch)?;
            let SlotLoss { loss, others } =
                watch.time(|times| &mut times.forward, || task.slot_loss(step, slot, features, &mut tape))?;
            let value = loss.value;
            sums.push_values(move || Ok([vec![value.read()? as f32], others].concat()))?;
            pass.backward(task, tape, loss.objective, sums, watch)?;
        }
        Ok(())
    })
}
