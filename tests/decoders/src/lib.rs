//! The data plane's decoders of foreign bytes, each as one function that says whether the bytes were taken.
//!
//! They are a crate of their own so that coverage-guided runs of them build without the model. `blip2-tests`
//! has the table of all decoders with the bounds that each is held to.

mod files;
mod samples;
mod sources;

pub use files::{corpus, manifest, quarantine, verification};
pub use samples::{caption, image, training_image};
pub use sources::{archive, caption_lines, caption_list};
