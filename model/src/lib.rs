//! BLIP-2's models on burn: image encoders, the Q-Former and what it is trained for, frozen language models,
//! and weights in and out of their published names.
//!
//! The crate knows nothing of storage, networks or processes: it maps tensors to tensors. Its floors, from
//! the ground up; each knows those above it in this list, and none below:
//!
//! - [`error`]: what can go wrong.
//! - [`device`]: devices by name, cards and seats; placement and numbers, and how tensors are read back.
//! - [`fused`]: passes over activations that are one operation on the CPU.
//! - [`nn`]: what all models are built of, and [`nn::tensors`]: every tensor under its published name, the
//!   one description that loading, saving, optimising and exchanging gradients share.
//! - [`train`]: a backward pass in segments, the buckets of the gradient it completes one by one, losses,
//!   AdamW.
//! - [`files`]: weights, configurations, tokenizers and image processors of published folders.
//! - [`vision`]: image encoders in the EVA and the CLIP layout.
//! - [`trained_encoder`]: one that is trained, its gradient block by block.
//! - [`qformer`]: the Querying Transformer.
//! - [`language`]: the frozen language models behind one interface, and text from them.
//! - [`objectives`]: the losses that train the Q-Former.
//! - [`clip`]: the reference retriever and ranker; [`blip`]: captioner and filter, for curation.
//! - [`blip2`]: the whole model, and its export to published layouts.
//!
//! Weights keep PyTorch's layout (`Linear` weights are `[out, in]`), so that no file is transposed.

pub mod blip;
pub mod blip2;
pub mod clip;
pub mod device;
pub mod error;
pub mod files;
pub mod fused;
pub mod language;
pub mod nn;
pub mod objectives;
#[cfg(test)]
mod published;
pub mod qformer;
pub mod train;
pub mod trained_encoder;
pub mod vision;
