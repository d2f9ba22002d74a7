//! Memory, threads and reads of a loader.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Memory, threads and reads of a loader. They change no bit of its batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderSettings {
    /// Memory for data read ahead, in bytes: half for row groups as stored, half for prepared batches (at
    /// least one batch is always prepared). Row groups of the current window that do not fit are read again
    /// and again.
    #[schemars(range(min = 0, max = 1_u64 << 50))]
    pub prefetch_bytes: u64,
    /// Threads that decode and transform images in each worker.
    #[schemars(range(min = 1, max = 1024))]
    pub decode_threads: usize,
    /// Reads under way at a time, of a row group each.
    #[schemars(range(min = 1, max = 4096))]
    pub read_concurrency: usize,
    /// Tries of a read, after those of the store's client, before the run fails.
    #[schemars(range(min = 1, max = 1000))]
    pub read_attempts: u32,
    /// Reads in a hundred that may be asked for a second time when the first answer is slower than nearly all
    /// were; the first answer counts. 0: none. Files of this machine are never asked twice.
    #[schemars(range(min = 0, max = 100))]
    pub hedged_percent: u32,
    /// Folder on a local disk that keeps row groups of a remote store; empty: none. Processes of one machine
    /// may name the same folder: each uses a part of its own.
    pub disk_cache: String,
    /// Most bytes of the disk cache of each worker; what the plan needs last is given up first.
    #[schemars(range(min = 0, max = 1_u64 << 50))]
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
