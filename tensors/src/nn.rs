//! What all models are built of: layers, attention and its cache, feed-forward parts, dropout, and the names
//! of tensors.

pub mod activation;
pub mod adapter;
pub mod attention;
pub mod cache;
pub mod causal;
pub mod drop_path;
pub mod dropout;
pub mod erased;
pub mod feed_forward;
pub mod flops;
pub mod layers;
pub mod narrow;
pub mod projections;
pub mod rows;
pub mod tensors;
