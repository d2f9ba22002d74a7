//! What reading and writing a run's objects can fail with.

use blip2_dataset::error::DatasetError;
use blip2_store::error::StoreError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, RunError>;

/// What went wrong with an object of a run, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A list of the run is damaged, or cannot be written.
    #[error(transparent)]
    List(#[from] DatasetError),
    /// Another coordinator took over this run.
    #[error(
        "epoch {epoch} of this run was taken by another coordinator; this one is fenced off and must end"
    )]
    Fenced {
        /// The first epoch that is not ours.
        epoch: u64,
    },
    /// A checkpoint is not what its COMMIT says.
    #[error("checkpoint {name}: {reason}")]
    Checkpoint {
        /// Name of the checkpoint.
        name: String,
        /// What differs.
        reason: String,
    },
    /// A membership epoch's object cannot be read.
    #[error("{object}: {reason}; it is not written by this program, or damaged")]
    Epoch {
        /// The object.
        object: String,
        /// What is wrong.
        reason: String,
    },
}
