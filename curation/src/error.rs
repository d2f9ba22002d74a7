//! What ends a curation.

use blip2_dataset::error::DatasetError;

/// `Result` of this crate.
pub type Result<T, E = CurationError> = std::result::Result<T, E>;

/// An error of a curation: what, where, and what to do. Jobs and their files fail as data does, with [`DatasetError`].
#[derive(Debug, thiserror::Error)]
pub enum CurationError {
    /// The pool or a store.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// The gRPC server ended.
    #[error("the coordinator's server ended: {0}")]
    Server(String),
}

impl CurationError {
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

    /// The command line's exit code for this error.
    pub fn exit_code(&self) -> u32 {
        match self {
            Self::Data(DatasetError::Location { .. }) => 78,
            Self::Data(error) if error.is_bad_input() => 3,
            _ => 1,
        }
    }
}
