//! What goes wrong with an image.

/// `Result` of this crate.
pub(crate) type Result<T, E = ImageError> = std::result::Result<T, E>;

/// An image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ImageError {
    /// Why not.
    pub reason: String,
}
