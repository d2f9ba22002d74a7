//! GGUF files of Llama: configuration, weights and tokenizer in one.

mod llama;
mod metadata;
mod tokenizer;

pub(crate) use llama::{config, tensors};
pub(crate) use metadata::MAGIC;
pub(crate) use tokenizer::tokenizer;

use std::path::Path;

/// Whether a path names a GGUF file, by its ending.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

#[cfg(test)]
mod tests;
