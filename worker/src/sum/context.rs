//! What a task gets of a step, and what it gives back.

use blip2_dataset::loader::{SlotBatch, StepBatch};
use blip2_proto::drill::DrillPhase;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::flat::FlatLayout;

use super::landing::{Landed, Landing};
use super::own_sums::SumPlan;
use super::peers::Peers;
use super::slots::Slots;
use super::times::Stopwatch;
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenModels;

/// Losses of the global batch, by name.
pub type StepValues = Vec<(&'static str, f64)>;

/// A step of a stage.
pub(crate) struct Step<'a> {
    pub(crate) frozen: &'a FrozenModels,
    pub(crate) peers: &'a Peers<'a>,
    /// Counts within the stage.
    pub(crate) number: u64,
    /// Of the own slots.
    pub(crate) batch: &'a StepBatch,
    /// Rows of the global batch.
    pub(crate) batch_rows: usize,
    /// The trained parameters: the master copy, for which no device is waited for.
    pub(crate) parameters: (&'a FlatLayout, &'a [f32]),
}

impl Step<'_> {
    /// The first value of a trained tensor.
    pub(crate) fn parameter(&self, name: &str) -> Result<f32> {
        let (layout, parameters) = self.parameters;
        let place = layout.get(name).and_then(|tensor| parameters.get(tensor.offset));
        place.copied().ok_or_else(|| WorkerError::Protocol(format!("a step without the parameter `{name}`")))
    }

    /// Key of a row's sample, which is the same whoever holds the row.
    pub(crate) fn sample(&self, row: usize) -> u64 {
        self.number * self.batch_rows as u64 + row as u64
    }

    /// The Q-Former's dropout masks of a slot in the part of the step that `purpose` names.
    pub(crate) fn dropout(&self, purpose: &str, slot: &SlotBatch) -> Dropout {
        self.frozen.dropout(purpose, self.number, slot.slot)
    }
}

/// A slot's first row in the global batch.
pub(crate) fn first_row(slot: &SlotBatch) -> usize {
    slot.slot as usize * slot.samples.len()
}

/// The way from the own slots' gradients to the gradient of the global batch.
pub(crate) struct StepSum<'a> {
    pub(crate) plan: SumPlan<'a>,
    pub(crate) landing: Landing<'a>,
}

impl StepSum<'_> {
    /// The sum over all slots of what `fill` gives for the own ones; its times go to `watch`.
    ///
    /// # Errors
    /// That of `fill`, or the first of a reduction.
    pub(crate) fn of_slots(
        self,
        step: &Step<'_>,
        watch: &mut Stopwatch,
        fill: impl FnOnce(&mut Slots<'_>, &mut Stopwatch) -> Result<()>,
    ) -> Result<Landed> {
        step.frozen.rehearse(DrillPhase::Reduction, step.peers.step);
        step.peers.sum(&self.plan, self.landing, watch, fill)
    }
}

/// What a task's step comes to.
pub(crate) struct Computed {
    /// The gradient of the global batch's loss, and what it leads to.
    pub(crate) landed: Landed,
    /// The task's losses, in the order of their names.
    pub(crate) losses: Vec<f64>,
    /// What else is reported, by name.
    pub(crate) others: StepValues,
    /// Own slots to blame if a loss is not finite.
    pub(crate) odd_slots: Vec<u32>,
}
