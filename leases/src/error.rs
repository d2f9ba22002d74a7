//! What ends a server or a client of leases.

/// `Result` of this crate.
pub type Result<T, E = LeaseError> = std::result::Result<T, E>;

/// What, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The coordinator did not take this worker.
    #[error("the coordinator refused this worker: {reason}")]
    Refused {
        /// What differs and what to do.
        reason: String,
    },
    /// The coordinator cannot be reached or went away.
    #[error("coordinator {address}: {reason}")]
    Coordinator {
        /// Its URL.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The gRPC server ended.
    #[error("the coordinator's server ended: {0}")]
    Server(String),
}

impl LeaseError {
    /// Whether the coordinator did not take this worker.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}
