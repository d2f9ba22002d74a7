//! GGUF files of Llama: configuration and weights, and the tokenizer beside them.

mod llama;
mod metadata;

pub(crate) use llama::{config, tensors};
pub(crate) use metadata::{Head, MAGIC};

use std::path::Path;

/// Whether a path names a GGUF file, by its ending.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}
