//! What members told of the units of held-out rows, read unit by unit.

use bytes::Bytes;

use crate::error::{Result, WorkerError};
use crate::wire_values::floats;

/// The members' buffers: every so many units are one member's.
pub(crate) struct UnitBuffers<'a> {
    all: &'a [Bytes],
    /// What is read of each.
    next: Vec<usize>,
}

impl<'a> UnitBuffers<'a> {
    /// Buffers that are read from byte `from` on.
    pub(crate) fn new(all: &'a [Bytes], from: usize) -> Self {
        Self { all, next: vec![from; all.len()] }
    }

    /// The next bytes of the member that computed `unit`.
    fn take(&mut self, unit: usize, length: usize) -> Result<&'a [u8]> {
        let member = unit % self.all.len();
        let start = self.next[member];
        self.next[member] += length;
        self.all[member].get(start..start + length).ok_or_else(|| {
            WorkerError::Protocol(format!("member {member} told too little of its held-out rows"))
        })
    }

    /// The next float64 of the member that computed `unit`.
    pub(crate) fn float64(&mut self, unit: usize) -> Result<f64> {
        let bytes = self.take(unit, 8)?;
        Ok(f64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    /// The next float32 values of the member that computed `unit`.
    pub(crate) fn floats(&mut self, unit: usize, count: usize) -> Result<Vec<f32>> {
        floats(self.take(unit, 4 * count)?)
    }
}
