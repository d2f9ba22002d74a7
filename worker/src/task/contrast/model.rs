//! What the steps of the contrast task are made of: its model, and a slot on its way.

use blip2_dataset::loader::SlotBatch;
use blip2_model::objectives::contrast::{ContrastModel, GlobalBatch, SlotForward};
use burn::tensor::Tensor;

use super::settings::ContrastSettings;
use crate::settings::train::GradientMode;
use crate::task::description::{LossName, loss};

/// The losses, their sum first; the task's gradient gives their values in this order.
pub(super) const LOSSES: &[LossName] = &[
    loss!("loss", "total"),
    loss!("loss_itc", "contrastive"),
    loss!("loss_itm", "matching"),
    loss!("loss_lm", "captioning"),
];

/// The model with what its step depends on.
#[derive(Debug)]
pub(super) struct ContrastTask {
    pub(super) settings: ContrastSettings,
    /// The stage's number.
    pub(super) stage: u32,
    pub(super) seed: u64,
    pub(super) mode: GradientMode,
    pub(super) queries: usize,
    pub(super) embed_dim: usize,
    pub(super) model: ContrastModel,
}

/// A slot between the two halves of its step.
pub(super) struct OpenSlot<'a> {
    pub(super) batch: &'a SlotBatch,
    pub(super) features: Tensor<3>,
    pub(super) forward: SlotForward,
}

impl ContrastTask {
    /// A global batch of no rows.
    pub(super) fn no_rows(&self) -> GlobalBatch {
        GlobalBatch {
            queries: self.queries,
            embed_dim: self.embed_dim,
            text_length: self.settings.text_length,
            ..GlobalBatch::default()
        }
    }
}
