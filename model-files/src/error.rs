//! What can go wrong with models and their files.

use std::path::PathBuf;

use blip2_tensors::error::TensorError;

/// An error of a model or of its files: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A weight file is not what it claims to be.
    #[error("{path}: not readable weights: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A configuration file lacks a field or holds a value that is not supported.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that the model needs is not in the weights.
    #[error("{origin}: tensor `{name}` of shape {shape:?} is missing; tried the names {tried:?}{hint}")]
    MissingTensor {
        /// Where it was looked for.
        origin: String,
        /// Its name in the model.
        name: String,
        /// The shape expected.
        shape: Vec<usize>,
        /// The names tried.
        tried: Vec<String>,
        /// The closest name that is there, as the end of the sentence; may be empty.
        hint: String,
    },
    /// Tensors in the weights that the model has no use for.
    #[error("{origin}: {count} tensors belong to no part of the model: {tensors}")]
    UnexpectedTensors {
        /// Where they were found.
        origin: String,
        /// How many.
        count: usize,
        /// The first of them with their shapes, and the closest names of the model.
        tensors: String,
    },
    /// A tensor has another shape than the model's configuration asks for.
    #[error("{origin}: tensor `{name}` has shape {found:?}, the configuration asks for {expected:?}")]
    Shape {
        /// Where it was found.
        origin: String,
        /// Its name.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape the model has.
        expected: Vec<usize>,
    },
    /// Tensors that do not fit the model, or the device they are on.
    #[error(transparent)]
    Tensors(#[from] TensorError),
}

impl ModelError {
    /// An I/O error on `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// A wrong input.
    pub fn input(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Tensors(TensorError::input(what, reason))
    }

    /// What a device said that could not do what was asked of it.
    pub fn of_device(&self) -> Option<&str> {
        match self {
            Self::Tensors(TensorError::Device(said)) => Some(said),
            _ => None,
        }
    }
}
