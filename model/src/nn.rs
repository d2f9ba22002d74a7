//! What all models are built of: layers, attention and its cache, feed-forward parts, dropout, and the names
//! of tensors.

pub mod activation;
pub mod attention;
pub(crate) mod cache;
pub(crate) mod causal;
pub mod drop_path;
pub mod dropout;
pub(crate) mod erased;
pub(crate) mod feed_forward;
pub mod flops;
pub mod layers;
pub(crate) mod projections;
pub(crate) mod rows;
pub mod tensors;
