//! What the passes of resampling read and write.

/// Rows that the pass across takes at a time.
pub(super) const ROWS: usize = 4;

/// Bytes that a line has to have behind its last pixel's weights.
pub(super) const MARGIN: usize = 16;

/// Bytes that the pass down sums up together.
pub(super) const BLOCK: usize = 32;

/// The rows that a pass reads from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    /// From the first byte that is read of row 0.
    pub(super) bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub(super) stride: usize,
}

/// Four lines, and rows of pixels that they become: red, green and blue from the lowest byte on.
pub(super) struct Across<'a> {
    /// Interleaved RGB, the first pixel of all weights foremost; each with [`MARGIN`] behind what is weighed.
    pub(super) lines: [&'a [u8]; ROWS],
    /// [`ROWS`] rows one after the other.
    pub(super) rows: &'a mut [u32],
}
