//! One input.

/// An input to keep.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Name of its file.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether the decoder takes it.
    pub taken: bool,
}

pub(super) fn taken(name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { name: name.into(), bytes: bytes.into(), taken: true }
}

pub(super) fn refused(name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { name: name.into(), bytes: bytes.into(), taken: false }
}
