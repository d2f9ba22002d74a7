//! Pinned sources, and the units into which they are cut.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A source as it was when the job began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PinnedSource {
    pub(super) location: String,
    pub(super) bytes: u64,
    /// Of stores other than local disks, whose tags change with a copy.
    pub(super) etag: Option<String>,
}

/// A part of a source that is done as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    /// Index among the sources.
    pub(super) source: usize,
    /// Its first row's index within the source.
    pub(super) first_row: u64,
    /// Its rows; `None` is all of the source.
    pub(super) rows: Option<u64>,
    /// Its bytes, of sources that are lines.
    pub(super) bytes: Option<Range<u64>>,
}
