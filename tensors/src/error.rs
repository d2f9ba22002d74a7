//! What can go wrong with tensors and devices.

/// An error of this crate: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// Inputs whose shapes do not fit.
    #[error("{what}: {reason}")]
    Input {
        /// Which input.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A name that no tensor of a flat buffer has.
    #[error("flat parameters: tensor `{name}` is missing")]
    Missing {
        /// The name.
        name: String,
    },
    /// The device could not do what was asked.
    #[error("device: {0}")]
    Device(String),
}

impl TensorError {
    /// A wrong input.
    pub fn input(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Input { what: what.into(), reason: reason.into() }
    }
}
