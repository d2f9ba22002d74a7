//! The ground that models stand on: devices, operations with own backward passes, layers, and what trains
//! them.
//!
//! The crate knows no model and no file: a model is what lists its tensors by name. (Two lists of how names
//! begin, in [`train`], say in which segment of the backward pass a gradient is complete.) Its floors, from
//! the ground up; each knows those above it in this list, and none below:
//!
//! - [`error`]: what can go wrong.
//! - [`device`]: devices by name, cards and seats; placement and numbers, and how tensors are read back.
//! - [`fused`]: passes over activations that are one operation on the CPU.
//! - [`nn`]: what all models are built of, and [`nn::tensors`]: every tensor under its published name, the
//!   one description that loading, saving, optimising and exchanging gradients share.
//! - [`train`]: a backward pass in segments, the buckets of the gradient it completes one by one, losses,
//!   AdamW.
//!
//! Weights keep PyTorch's layout (`Linear` weights are `[out, in]`), so that no file is transposed.

pub mod device;
pub mod error;
pub mod fused;
pub mod nn;
pub mod train;
