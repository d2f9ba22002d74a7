//! Training: the backward pass in segments, the gradient in buckets, losses, and AdamW on a flat master copy.

pub mod buckets;
pub mod flat;
pub mod loss;
pub mod optimizer;
pub mod placed;
pub mod tape;
