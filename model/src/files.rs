//! Published files in: weights, configurations, tokenizers and image processors, as folders have them.

pub mod config;
pub mod formats;
pub mod image_processor;
pub(crate) mod lfs;
pub(crate) mod read;
pub mod tokenizer;
pub mod weights;
