//! What keeps a file of questions, answers or similarities from being scored.

use std::path::Path;

use blip2_run::exit::{Exit, ExitClass};

/// `Result` of the readers of such files.
pub type Result<T, E = FileError> = std::result::Result<T, E>;

/// An error of a file: which, and what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is of another form, or does not fit the others.
    #[error("{file}: {reason}")]
    Unusable {
        /// Which.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It cannot be read.
    #[error("{file}: {source}")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl FileError {
    pub(crate) fn unusable(file: &Path, reason: impl Into<String>) -> Self {
        Self::Unusable { file: file.display().to_string(), reason: reason.into() }
    }

    pub(crate) fn unreadable(file: &Path, source: std::io::Error) -> Self {
        Self::Unreadable { file: file.display().to_string(), source }
    }
}

impl ExitClass for FileError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unusable { .. } => Exit::BadInput,
            Self::Unreadable { .. } => Exit::Failed,
        }
    }
}
