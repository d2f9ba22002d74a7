//! What a loader has done so far and where its time went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Totals since a loader was started. Times are summed over threads, reads that wait at the same time each
/// count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoaderStatistics {
    /// Samples prepared.
    pub samples: u64,
    /// Bytes of their images as stored.
    pub image_bytes: u64,
    /// Bytes that the store sent and that were used, footers left out.
    pub read_bytes: u64,
    /// Row groups read from the store.
    pub reads: u64,
    /// Reads for which a second request was sent because the first was slow.
    pub hedged: u64,
    /// Reads that were tried again after a failure.
    pub retried: u64,
    /// Row groups found in the disk cache.
    pub disk_hits: u64,
    /// Bytes of them.
    pub disk_bytes: u64,
    /// Samples whose row group was in memory, decoded, when they came for it.
    pub found_decoded: u64,
    /// Samples whose row group was being read or decoded by then, or was read and not decoded yet.
    pub found_coming: u64,
    /// Samples whose row group had not been asked for by then, or not any more.
    pub found_missing: u64,
    /// Waiting for the store or the disk cache.
    pub read: Duration,
    /// Decompressing and decoding Parquet.
    pub parquet: Duration,
    /// Decoding images.
    pub decode: Duration,
    /// Cropping and resizing them.
    pub transform: Duration,
    /// Cleaning and tokenising captions.
    pub tokenise: Duration,
    /// Putting samples into batches.
    pub assemble: Duration,
}

/// A total that threads add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn add_time(&self, time: Duration) {
        // Centuries of nanoseconds fit.
        self.add(time.as_nanos() as u64);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn time(&self) -> Duration {
        Duration::from_nanos(self.count())
    }
}

/// The totals of [`LoaderStatistics`] while they grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) samples: Counter,
    pub(crate) image_bytes: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) reads: Counter,
    pub(crate) hedged: Counter,
    pub(crate) retried: Counter,
    pub(crate) disk_hits: Counter,
    pub(crate) disk_bytes: Counter,
    pub(crate) found_decoded: Counter,
    pub(crate) found_coming: Counter,
    pub(crate) found_missing: Counter,
    pub(crate) read: Counter,
    pub(crate) parquet: Counter,
    pub(crate) decode: Counter,
    pub(crate) transform: Counter,
    pub(crate) tokenise: Counter,
    pub(crate) assemble: Counter,
}

impl Counters {
    pub(crate) fn totals(&self) -> LoaderStatistics {
        LoaderStatistics {
            samples: self.samples.count(),
            image_bytes: self.image_bytes.count(),
            read_bytes: self.read_bytes.count(),
            reads: self.reads.count(),
            hedged: self.hedged.count(),
            retried: self.retried.count(),
            disk_hits: self.disk_hits.count(),
            disk_bytes: self.disk_bytes.count(),
            found_decoded: self.found_decoded.count(),
            found_coming: self.found_coming.count(),
            found_missing: self.found_missing.count(),
            read: self.read.time(),
            parquet: self.parquet.time(),
            decode: self.decode.time(),
            transform: self.transform.time(),
            tokenise: self.tokenise.time(),
            assemble: self.assemble.time(),
        }
    }
}
