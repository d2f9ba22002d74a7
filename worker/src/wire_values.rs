//! float32 values from bytes on the wire, little-endian.

use crate::error::{Result, WorkerError};

/// The float32 values in `bytes`, wherever they lie in memory.
pub(crate) fn floats(bytes: &[u8]) -> Result<Vec<f32>> {
    if !bytes.len().is_multiple_of(4) {
        return Err(WorkerError::Protocol(format!("a buffer of {} bytes is not float32", bytes.len())));
    }
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
