//! What keeps a model from being evaluated.

pub mod captions;
pub mod tools;

use blip2_dataset::error::DatasetError;
use blip2_images::ImageError;
use blip2_model_files::error::ModelError;
use blip2_run::exit::{Exit, ExitClass};
use blip2_tensors::error::TensorError;

/// `Result` of this crate.
pub type Result<T, E = EvaluationError> = std::result::Result<T, E>;

/// An error of an evaluation: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// What was asked for cannot be done.
    #[error("configuration: {0}")]
    Configuration(String),
    /// Samples, or a store.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// A model or its weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// What is measured is no number.
    #[error(
        "{what} is {value}, not a finite number: nothing is measured; are parameters, weights or pictures damaged?"
    )]
    Measured {
        /// A loss or a similarity, and of what.
        what: String,
        /// The value.
        value: f64,
    },
}

impl EvaluationError {
    /// The value, if it is finite.
    ///
    /// # Errors
    /// [`EvaluationError::Measured`] under the name that `what` gives it.
    pub(crate) fn unless_finite(value: f64, what: impl FnOnce() -> String) -> Result<f64> {
        if value.is_finite() { Ok(value) } else { Err(Self::Measured { what: what(), value }) }
    }
}

impl From<TensorError> for EvaluationError {
    fn from(error: TensorError) -> Self {
        Self::Model(error.into())
    }
}

impl From<ImageError> for EvaluationError {
    fn from(error: ImageError) -> Self {
        Self::Data(error.into())
    }
}

impl ExitClass for EvaluationError {
    fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) => Exit::BadConfig,
            Self::Data(error) => error.exit(),
            Self::Model(_) | Self::Measured { .. } => Exit::Failed,
        }
    }
}
