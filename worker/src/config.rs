//! What a step is a function of: the training configuration, its defaults and its hash.

pub mod hash;
pub mod pretraining;
pub mod stage;
pub mod stored;
pub mod valid;
mod worker;

pub use worker::{WorkerConfig, numbered};
