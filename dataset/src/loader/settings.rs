//! Memory, threads and reads of a loader.

use serde::{Deserialize, Serialize};

/// Memory, threads and reads of a loader. They change no bit of its batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderSettings {
    /// Bytes held ahead of the training step: half for row groups as stored, half for prepared batches (at
    /// least one batch is always prepared). Row groups of the current window that do not fit are read again
    /// and again.
    pub prefetch_bytes: u64,
    /// Threads that decode and transform images.
    pub decode_threads: usize,
    /// Row groups read at the same time.
    pub read_concurrency: usize,
    /// Tries of a read, after those of the store's own client, before it counts as failed.
    pub read_attempts: u32,
    /// Reads in a hundred that may be asked for a second time when the first answer is slower than nearly all
    /// were; the first answer counts. 0: none. Files of this machine are never asked twice.
    pub hedged_percent: u32,
    /// Folder of a cache on a local disk for row groups of a store; empty: none. Processes of one machine may
    /// name the same folder: each uses a part of its own.
    pub disk_cache: String,
    /// Bytes that the disk cache of one process may hold; what the plan needs last is given up first.
    pub disk_cache_bytes: u64,
}

impl Default for LoaderSettings {
    fn default() -> Self {
        Self {
            prefetch_bytes: 256 << 20,
            decode_threads: 1,
            read_concurrency: 8,
            read_attempts: 5,
            hedged_percent: 10,
            disk_cache: String::new(),
            disk_cache_bytes: 64 << 30,
        }
    }
}
