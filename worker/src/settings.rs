//! The sections of a configuration that a step depends on, each with its defaults.

pub mod data;
pub mod encoder;
pub mod lora;
pub mod model;
pub mod optimizer;
pub mod train;
