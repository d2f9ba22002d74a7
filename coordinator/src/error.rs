//! What the coordinator can fail with.

use blip2_proto::drill::DrillError;
use blip2_run::RunError;
use blip2_run::exit::{Exit, ExitClass};
use blip2_store::error::StoreError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, CoordinatorError>;

/// What went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The run's store, or an object in it.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A setting does not fit the others.
    #[error("{key}: {reason}")]
    Setting {
        /// Name of the setting.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A drill cannot be understood.
    #[error(transparent)]
    Drill(#[from] DrillError),
    /// The gRPC server ended.
    #[error("the coordinator's server ended: {0}")]
    Server(String),
}

impl From<StoreError> for CoordinatorError {
    fn from(error: StoreError) -> Self {
        Self::Run(error.into())
    }
}

impl ExitClass for CoordinatorError {
    fn exit(&self) -> Exit {
        match self {
            Self::Run(error) => error.exit(),
            Self::Setting { .. } | Self::Drill(_) => Exit::BadConfig,
            Self::Server(_) => Exit::Failed,
        }
    }
}
