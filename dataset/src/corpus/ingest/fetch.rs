//! An object as a `Read`, in ranged reads that are retried, with two of them ahead of the reader.

use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use blip2_store::Location;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use object_store::ObjectStoreExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::DatasetError;

/// Length of one read, bytes.
const READ: u64 = 4 << 20;
/// Reads at a time.
const AHEAD: usize = 2;

/// Reads a range of an object from a thread that may block.
pub(super) struct ObjectReader {
    chunks: mpsc::Receiver<Result<Bytes, DatasetError>>,
    current: Bytes,
    failure: StoreFailure,
    /// Ends with this reader.
    _reading: JoinSet<()>,
}

/// The store's error that ended an [`ObjectReader`], if one did; told apart so from damaged content.
#[derive(Debug, Clone, Default)]
pub(super) struct StoreFailure(Arc<Mutex<Option<DatasetError>>>);

impl StoreFailure {
    pub(super) fn take(&self) -> Option<DatasetError> {
        // A poisoned lock still holds the error.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    fn set(&self, error: DatasetError) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
    }
}

impl ObjectReader {
    /// Starts reading; a task of the current runtime does it.
    pub(super) fn start(location: &Location, range: Range<u64>) -> (Self, StoreFailure) {
        let (sender, chunks) = mpsc::channel(1);
        let location = location.clone();
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            let starts = range.clone().step_by(READ as usize);
            let reads = starts.map(|start| read(location.clone(), start..(start + READ).min(range.end)));
            let mut reads = futures::stream::iter(reads).buffered(AHEAD);
            while let Some(chunk) = reads.next().await {
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        let failure = StoreFailure::default();
        (Self { chunks, current: Bytes::new(), failure: failure.clone(), _reading: reading }, failure)
    }
}

async fn read(location: Location, range: Range<u64>) -> Result<Bytes, DatasetError> {
    let read = location.store().get_range(location.path(), range).await;
    Ok(read.map_err(|error| location.failed("read", &error))?)
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => {
                    let message = error.to_string();
                    self.failure.set(error);
                    return Err(std::io::Error::other(message));
                }
            }
        }
        let taken = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..taken]);
        Ok(taken)
    }
}
