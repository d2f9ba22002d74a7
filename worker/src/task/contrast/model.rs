//! What the steps of the contrast task are made of: its model, and a slot on its way.

use blip2_dataset::loader::SlotBatch;
use blip2_model::objectives::contrast::{ContrastModel, GlobalBatch, SlotForward};
use burn::tensor::Tensor;

use super::settings::ContrastSettings;
use crate::settings::train::GradientMode;
use crate::task::description::{LossName, loss};

/// The losses, their sum first; the task's gradient gives their values in this order.
pub(in crate::task) const LOSSES: &[LossName] = &[
    loss!("loss", "total"),
    loss!("loss_itc", "contrastive"),
    loss!("loss_itm", "matching"),
    loss!("loss_lm", "captioning"),
];

/// The model with what its step depends on.
#[derive(Debug)]
pub(in crate::task) struct ContrastTask {
    pub(in crate::task) settings: ContrastSettings,
    /// The stage's number.
    pub(in crate::task) stage: u32,
    pub(in crate::task) seed: u64,
    pub(in crate::task) mode: GradientMode,
    pub(in crate::task) queries: usize,
    pub(in crate::task) embed_dim: usize,
    pub(in crate::task) model: ContrastModel,
}

/// A slot between the two halves of its step.
pub(in crate::task) struct OpenSlot<'a> {
    pub(in crate::task) batch: &'a SlotBatch,
    /// The images' raw features, without autodiff.
    pub(in crate::task) features: Tensor<3>,
    pub(in crate::task) forward: SlotForward,
    /// The images' ids where the task tells images apart by them; empty where each row has its own.
    pub(in crate::task) image_ids: Vec<u64>,
}

impl ContrastTask {
    /// A global batch of no rows.
    pub(in crate::task) fn no_rows(&self) -> GlobalBatch {
        GlobalBatch {
            queries: self.queries,
            embed_dim: self.embed_dim,
            text_length: self.settings.text_length,
            ..GlobalBatch::default()
        }
    }
}
