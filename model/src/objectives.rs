//! What the Q-Former is trained for, and what a step of it costs.
//!
//! - [`contrast`]: contrastive, matching and captioning losses against the texts of all slots.
//! - [`generate`]: its queries are a soft prompt of a frozen language model.
//! - [`questions`]: the same with a question beside them, which they look for.
//! - [`flops`]: operations of a step, counted from shapes.
//! - [`kept`]: numbers that a step's passes keep on the device, counted likewise.

pub mod contrast;
pub mod flops;
pub mod generate;
pub mod kept;
pub mod questions;
