//! The contrast task: contrastive, matching and captioning losses of one slot of the global batch.
//!
//! A step goes in two halves, with an exchange between them that this crate does not see:
//!
//! 1. [`ContrastModel::features`] per slot gives the slot's contrastive features and keeps its graph;
//! 2. the features, token ids and masks of all slots are gathered as values into [`GlobalBatch`], from which
//!    [`GlobalFeatures::contrast`] computes the global contrastive loss, its gradient and the hard negatives;
//! 3. [`ContrastModel::slot_loss`] per slot builds the objective whose gradient, summed over slots, is the
//!    gradient of the global-batch loss.
//!
//! Where the image encoder is trained too, the features are leaves: an image's gradient is that of its own
//! slot and that of the rows whose negative it is, which [`negative_gradients`] cuts apart where they are
//! computed and [`add_negatives`] adds up where the image is.

mod beginning;
mod contrastive;
mod forward;
mod global;
mod home;
mod matching;
mod model;

pub use contrastive::{Contrast, GradientMode, Side};
pub use forward::{SlotBatch, SlotContext, SlotForward, SlotLoss};
pub use global::{GlobalBatch, GlobalFeatures};
pub use home::{NegativeGradient, add_negatives, negative_gradients};
pub use model::{CaptionHead, ContrastModel};
