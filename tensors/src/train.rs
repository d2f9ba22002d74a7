//! Training: the backward pass in segments, the gradient in buckets, losses, and AdamW on a flat master copy.

pub mod buckets;
pub(crate) mod encoder_part;
pub mod flat;
pub mod layer_decay;
pub mod loss;
pub mod optimizer;
pub mod placed;
pub mod tape;
