//! What the coordinator and the catalogue can fail with.

use blip2_dataset::error::DatasetError;
use blip2_proto::drill::DrillError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, CoordinatorError>;

/// What went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] DatasetError),
    /// A setting does not fit the others.
    #[error("{key}: {reason}")]
    Setting {
        /// Name of the setting.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
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
    /// A drill cannot be understood.
    #[error(transparent)]
    Drill(#[from] DrillError),
    /// The gRPC server ended.
    #[error("the coordinator's server ended: {0}")]
    Server(String),
}

impl CoordinatorError {
    /// The server's task ended though nobody stopped it.
    pub(crate) fn server_ended(
        ended: std::result::Result<std::result::Result<(), tonic::transport::Error>, tokio::task::JoinError>,
    ) -> Self {
        Self::Server(match ended {
            Ok(Ok(())) => "without a reason".into(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        })
    }

    /// The exit code of the command line for this class of error.
    pub fn exit_code(&self) -> u32 {
        match self {
            Self::Fenced { .. } => 4,
            Self::Setting { .. } | Self::Drill(_) => 78,
            _ => 1,
        }
    }
}
