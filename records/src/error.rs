//! What keeping and reading records can fail with.

use blip2_run::RunError;
use blip2_store::error::StoreError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, RecordsError>;

/// What went wrong with the records of a run, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The run's store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run's epochs cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The file cannot be read.
    #[error("{place}: cannot read the metrics: {reason}")]
    Unreadable {
        /// The file.
        place: String,
        /// Why.
        reason: String,
    },
    /// The file cannot be written.
    #[error("{place}: cannot write the metrics: {reason}; is the disk full?")]
    Unwritable {
        /// The file.
        place: String,
        /// Why.
        reason: String,
    },
    /// The store did not take the lines, and more cannot wait.
    #[error("{place}: the store has not taken the metrics for too long")]
    NotTaken {
        /// The run.
        place: String,
    },
    /// A line is none of these.
    #[error("{place}: this is not a line of metrics: {reason}")]
    Line {
        /// File and line.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A record has no form as a line.
    #[error("a step's metrics do not serialise: {0}")]
    Serialise(#[from] serde_json::Error),
    /// A task of this process ended abnormally.
    #[error("reading the metrics: {0}")]
    Task(#[from] tokio::task::JoinError),
}
