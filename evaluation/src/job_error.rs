//! What keeps a set from being evaluated.

use blip2_dataset::error::DatasetError;
use blip2_run::exit::{Exit, ExitClass};
use blip2_store::error::StoreError;

use crate::error::EvaluationError;
use crate::error::captions::CaptionsError;
use crate::file_error::FileError;

/// `Result` of sets and jobs.
pub type Result<T, E = JobError> = std::result::Result<T, E>;

/// An error of an evaluation over a set: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A file of questions, captions or rows.
    #[error(transparent)]
    File(#[from] FileError),
    /// Captions that are no set.
    #[error(transparent)]
    Captions(#[from] CaptionsError),
    /// A model, or what it computes.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// Images or Parquet files.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// An image that is needed and cannot be used.
    #[error("image `{name}`: {reason}")]
    Image {
        /// As the set names it.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The folder of results holds those of something else.
    #[error("{place} was begun with another {what}: name another --out, or remove it")]
    Other {
        /// The folder.
        place: String,
        /// In what it differs.
        what: String,
    },
    /// A unit's object that holds no results of this job.
    #[error("{place}: {reason}; remove it, and it is computed again")]
    Unit {
        /// The object.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Data(error.into())
    }
}

impl ExitClass for JobError {
    fn exit(&self) -> Exit {
        match self {
            Self::File(error) => error.exit(),
            Self::Evaluation(error) => error.exit(),
            Self::Data(error) => error.exit(),
            Self::Captions(_) | Self::Image { .. } | Self::Unit { .. } => Exit::BadInput,
            Self::Other { .. } => Exit::Refused,
        }
    }
}
