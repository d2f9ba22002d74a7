//! What can go wrong when scenes are made.

use std::path::{Path, PathBuf};

/// Why scenes could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum ScenesError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system or the format says.
        reason: String,
    },
    /// The corpus lacks a drawing that the scenes are made of.
    #[error(
        "{folder} has no drawing \"{name}\" of {vendor}; give the folder of the emoji corpus (assets/corpus)"
    )]
    NoDrawing {
        /// The corpus.
        folder: PathBuf,
        /// The caption that was looked for.
        name: &'static str,
        /// Whose drawing.
        vendor: &'static str,
    },
    /// A drawing has nothing left once its white is taken away.
    #[error("the drawing `{key}` is empty")]
    EmptyDrawing {
        /// Its key in the corpus.
        key: String,
    },
    /// The image size cannot hold four things.
    #[error("images of {size} pixels: choose {least} to {most}")]
    Size {
        /// What was asked for.
        size: u32,
        /// Smallest.
        least: u32,
        /// Largest.
        most: u32,
    },
}

impl ScenesError {
    /// [`ScenesError::File`] with what was said.
    pub(crate) fn file(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ScenesError>;
