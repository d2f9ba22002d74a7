//! Whether this process can do its part.

/// Whether this process can do its part, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot, for this reason, a line.
    NotReady(String),
}

impl Default for Readiness {
    fn default() -> Self {
        Self::NotReady("it has just been started".into())
    }
}
