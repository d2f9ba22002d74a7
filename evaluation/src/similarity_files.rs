//! Files of similarities of images and texts, as NumPy and `safetensors` write them, and files that say which
//! of them belong together.

pub mod matrix;
mod npy;
pub mod pairs;
mod tensors;

use std::path::Path;

use crate::file_error::{FileError, Result};
use matrix::SimilarityFile;

/// Reads `.npy` (one matrix, `[images, texts]`) or `.safetensors` (`cosine` or `similarity`, and `scores_i2t`
/// with `scores_t2i`; or any one matrix).
///
/// # Errors
/// A file that cannot be read or is of another form.
pub fn read(path: &Path) -> Result<SimilarityFile> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => Ok(SimilarityFile { all: Some(npy::read(path)?), reranked: None }),
        Some("safetensors") => tensors::read(path),
        _ => Err(FileError::unusable(path, "similarities are read from .npy or .safetensors")),
    }
}
