//! BLIP-2's models on burn: image encoders, the Q-Former with its three stage-1 losses, frozen language
//! models for stage 2, generation, and weights in and out of their published names.
//!
//! The crate knows nothing of storage, networks or processes: it maps tensors to tensors.
//!
//! - [`vision`]: frozen image encoders in the EVA and the CLIP layout.
//! - [`qformer`]: the Querying Transformer; [`stage1`] and [`stage2`] train it.
//! - [`language_model`]: the frozen language models behind one interface: [`opt`], [`t5`], [`llama`].
//! - [`clip`]: the reference retriever and ranker; [`blip`]: captioner and filter, for curation.
//! - [`tensors`]: every tensor under its published name: the one description that loading, saving,
//!   optimising and exchanging gradients share. [`weights`] reads files, [`export`] writes them.
//! - [`tape`], [`parts`]: a backward pass in segments, and the parts of the gradient it completes one by one.
//! - [`tokenizer`], [`image_processor`]: how published folders prepare texts and pictures.
//! - [`device`]: devices by name; [`placement`]: frozen matrices in bf16.
//! - [`fused`]: passes over activations that are one operation on the CPU.
//! - [`optimizer`]: AdamW on the flat float32 master copy of the trainable tensors.
//!
//! Weights keep PyTorch's layout (`Linear` weights are `[out, in]`), so that no file is transposed.

pub mod activation;
pub mod blip;
pub mod blip2;
mod cache;
pub mod card;
mod causal;
pub mod clip;
pub mod compute;
pub mod device;
pub mod device_failure;
pub mod dropout;
mod error;
pub mod export;
mod feed_forward;
mod files;
pub mod flops;
pub mod fused;
pub mod generate;
pub mod hf_config;
pub mod host;
pub mod image_processor;
pub mod language_model;
pub mod layers;
mod lfs;
pub mod llama;
pub mod loss;
mod numbers;
pub mod opt;
pub mod optimizer;
pub mod parts;
pub mod placed;
pub mod placement;
mod projections;
#[cfg(test)]
mod published;
pub mod qformer;
pub mod seat;
pub mod stage1;
pub mod stage2;
pub mod t5;
pub mod tape;
pub mod tensors;
pub mod tokenizer;
pub mod vision;
pub mod weights;

pub use activation::Activation;
pub use error::ModelError;
