//! Reads of row groups: from the disk cache or the store, tried again when they fail, asked for twice when
//! they are slow.

mod disk;
mod latency;
mod next_use;
mod read_for;

use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use blip2_store::PinnedObject;
use blip2_store::retry::{Retries, is_transient};
use bytes::Bytes;
use futures::future::{Either, select};

use super::settings::LoaderSettings;
use super::statistics::Counters;
use crate::corpus::parquet_file::RangeReads;
use crate::error::Result;
use disk::DiskCache;
pub(crate) use disk::DiskKey;
use latency::Latency;
pub(crate) use next_use::NextUses;
pub(crate) use read_for::ReadFor;

/// Before the second try of a read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How row groups are read. None of it changes what is read.
#[derive(Debug)]
pub(crate) struct Reads {
    retries: Retries,
    latency: Mutex<Latency>,
    disk: Option<Arc<DiskCache>>,
    counters: Arc<Counters>,
}

/// The reads for one row group.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadsFor<'a> {
    pub(super) reads: &'a Reads,
    pub(super) wanted: ReadFor,
}

impl RangeReads for ReadsFor<'_> {
    async fn ranges(
        &self,
        object: &PinnedObject,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, object_store::Error> {
        self.reads.ranges(object, ranges, self.wanted).await
    }

    fn forget(&self, object: &PinnedObject, ranges: &[Range<u64>]) {
        self.reads.forget(object, ranges);
    }
}

impl Reads {
    /// As the settings say; `uses` tells the disk cache when a row group is needed.
    ///
    /// # Errors
    /// [`DatasetError::Setting`](crate::error::DatasetError::Setting) if the disk cache's folder cannot be
    /// used.
    pub(crate) fn open(settings: &LoaderSettings, uses: NextUses, counters: Arc<Counters>) -> Result<Self> {
        let disk = match settings.disk_cache.as_str() {
            "" => None,
            folder => Some(Arc::new(DiskCache::open(folder.as_ref(), settings.disk_cache_bytes, uses)?)),
        };
        let latency = Mutex::new(Latency::new(settings.hedged_percent));
        let retries = Retries { tries: settings.read_attempts, first_pause: FIRST_PAUSE };
        Ok(Self { retries, latency, disk, counters })
    }

    /// The plan has come to `window`.
    pub(crate) fn advance(&self, window: u64) {
        if let Some(disk) = &self.disk {
            disk.advance(window);
        }
    }

    /// Ranges of an object, in their order.
    ///
    /// # Errors
    /// The store's, after the last try.
    pub(crate) async fn ranges(
        &self,
        object: &PinnedObject,
        ranges: &[Range<u64>],
        wanted: ReadFor,
    ) -> Result<Vec<Bytes>, object_store::Error> {
        let started = Instant::now();
        let found = self.disk_or_store(object, ranges, wanted).await;
        self.counters.read.add_time(started.elapsed());
        found
    }

    /// What was read is wrong: it is not to come from the disk cache again.
    pub(crate) fn forget(&self, object: &PinnedObject, ranges: &[Range<u64>]) {
        if let Some(disk) = &self.disk {
            disk.forget(&DiskKey::new(object, ranges));
        }
    }

    async fn disk_or_store(
        &self,
        object: &PinnedObject,
        ranges: &[Range<u64>],
        wanted: ReadFor,
    ) -> Result<Vec<Bytes>, object_store::Error> {
        let Some(disk) = self.disk.clone() else { return self.store_ranges(object, ranges).await };
        let key = DiskKey::new(object, ranges);
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        let load = {
            let (disk, key) = (Arc::clone(&disk), key.clone());
            tokio::task::spawn_blocking(move || disk.load(&key, bytes, wanted))
        };
        // A task that ended otherwise is a row group that was not found.
        if let Ok(Some(content)) = load.await {
            self.counters.disk_hits.add(1);
            self.counters.disk_bytes.add(bytes);
            return Ok(cut(&content, ranges));
        }
        let read = self.store_ranges(object, ranges).await?;
        let kept = read.clone();
        // A row group that could not be kept is read again from the store.
        let _ = tokio::task::spawn_blocking(move || disk.store(&key, &kept, wanted)).await;
        Ok(read)
    }

    async fn store_ranges(
        &self,
        object: &PinnedObject,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, object_store::Error> {
        let hedge = !object.location().is_local();
        let read = || self.hedged(hedge, || object.read_ranges(ranges));
        let again = |error: &object_store::Error| {
            tracing::debug!(%error, "a read failed and is tried again");
            self.counters.retried.add(1);
        };
        let content = self.retries.run(read, is_transient, again).await?;
        self.counters.reads.add(1);
        self.counters.read_bytes.add(content.iter().map(|part| part.len() as u64).sum());
        Ok(content)
    }

    /// Asks a second time when the first answer takes longer than nearly all did; the first good answer
    /// counts.
    async fn hedged<T, F: Future<Output = Result<T, object_store::Error>>>(
        &self,
        hedge: bool,
        read: impl Fn() -> F,
    ) -> Result<T, object_store::Error> {
        if !hedge {
            return read().await;
        }
        let started = Instant::now();
        let mut first = Box::pin(read());
        let patience = self.latency().patience();
        let answer = match tokio::time::timeout(patience, &mut first).await {
            Ok(answer) => answer,
            Err(_) if self.latency().may_hedge() => {
                self.counters.hedged.add(1);
                match select(first, Box::pin(read())).await {
                    Either::Left((Ok(answer), _)) | Either::Right((Ok(answer), _)) => Ok(answer),
                    Either::Left((Err(_), other)) => other.await,
                    Either::Right((Err(_), other)) => other.await,
                }
            }
            Err(_) => first.await,
        };
        if answer.is_ok() {
            self.latency().record(started.elapsed());
        }
        answer
    }

    fn latency(&self) -> std::sync::MutexGuard<'_, Latency> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ranges' bytes of what was stored one after the other.
fn cut(content: &Bytes, ranges: &[Range<u64>]) -> Vec<Bytes> {
    let mut at = 0;
    let lengths = ranges.iter().map(|range| (range.end - range.start) as usize);
    lengths
        .map(|length| {
            at += length;
            content.slice(at - length..at)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn reads(tries: u32, hedged_percent: u32) -> Reads {
        Reads {
            retries: Retries { tries, first_pause: FIRST_PAUSE },
            latency: Mutex::new(Latency::new(hedged_percent)),
            disk: None,
            counters: Arc::default(),
        }
    }

    #[tokio::test]
    async fn a_slow_answer_is_overtaken_by_a_second_request() {
        let reads = reads(1, 100);
        let quick = async || {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, object_store::Error>(0)
        };
        for _ in 0..40 {
            reads.hedged(true, &quick).await.unwrap();
        }
        let before = reads.counters.totals().hedged;
        let tries = AtomicUsize::new(0);
        let answer = reads.hedged(true, async || {
            let number = tries.fetch_add(1, Ordering::SeqCst);
            if number == 0 {
                std::future::pending::<()>().await;
            }
            Ok::<_, object_store::Error>(number)
        });
        assert_eq!(answer.await.unwrap(), 1, "the first one never answers");
        assert_eq!(reads.counters.totals().hedged, before + 1);

        // One of two fails: the other counts.
        let tries = AtomicUsize::new(0);
        let answer = reads.hedged(true, async || match tries.fetch_add(1, Ordering::SeqCst) {
            0 => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(7)
            }
            _ => Err(object_store::Error::Generic { store: "test", source: "busy".into() }),
        });
        assert_eq!(answer.await.unwrap(), 7);
    }
}
