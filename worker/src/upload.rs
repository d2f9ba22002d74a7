//! Checkpoint parts on their way to the store, while the steps go on.

use std::time::{Duration, Instant};

use blip2_proto::drill::{Drill, DrillPhase};
use blip2_proto::v1::{PartFailed, PartWritten};
use blip2_store::Location;
use bytes::Bytes;
use object_store::{ObjectStoreExt, WriteMultipart};
use tokio::sync::OwnedSemaphorePermit;

/// Parts larger than this are written in pieces of this size.
const PIECE: usize = 32 << 20;
/// Pieces of a part on the way at a time.
const PIECES_AT_A_TIME: usize = 4;

/// A snapshot of the state's part, taken when its step was committed.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) checkpoint: String,
    /// Committed steps.
    pub(crate) step: u64,
    pub(crate) name: String,
    pub(crate) content: Bytes,
    /// When it was ordered.
    pub(crate) ordered: Instant,
    /// For how long the step loop stood still.
    pub(crate) stall: Duration,
    pub(crate) deadline: Duration,
    /// Its place among the snapshots in memory.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// What became of a part.
pub(crate) enum Upload {
    Stored(PartWritten),
    Failed(PartFailed),
}

/// Stores a part below `folder`; a failure ends no run.
pub(crate) async fn store_part(folder: Location, part: Part, drill: Drill) -> Upload {
    if let Some(wait) = drill.reached(DrillPhase::Upload, part.step) {
        tokio::time::sleep(wait).await;
    }
    let object = folder.join(&part.name);
    let stored = tokio::time::timeout(part.deadline, store(&object, part.content.clone())).await;
    let stored = stored.unwrap_or_else(|_| {
        Err(format!("{object} is not written after {:.0} s", part.deadline.as_secs_f64()))
    });
    match stored {
        Ok(blake3) => Upload::Stored(PartWritten {
            checkpoint: part.checkpoint,
            part: part.name,
            length: part.content.len() as u64,
            blake3,
            stall_seconds: part.stall.as_secs_f64(),
            seconds: part.ordered.elapsed().as_secs_f64(),
        }),
        Err(reason) => {
            tracing::warn!(checkpoint = %part.checkpoint, %reason, "a checkpoint part is not stored");
            Upload::Failed(PartFailed { checkpoint: part.checkpoint, reason })
        }
    }
}

/// Writes the object while its BLAKE3 is computed, and returns that.
async fn store(object: &Location, content: Bytes) -> Result<String, String> {
    let hashed = content.clone();
    let hash = tokio::task::spawn_blocking(move || blake3::hash(&hashed).to_hex().to_string());
    let written = async {
        if content.len() <= PIECE {
            object.put(content).await.map_err(|error| error.to_string())
        } else {
            in_pieces(object, content).await.map_err(|error| format!("{object}: {error}"))
        }
    };
    let (written, hash) = tokio::join!(written, hash);
    written?;
    hash.map_err(|error| format!("{object} cannot be hashed: {error}"))
}

async fn in_pieces(object: &Location, mut content: Bytes) -> Result<(), object_store::Error> {
    let upload = object.store().put_multipart(object.path()).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PIECE);
    while !content.is_empty() {
        if let Err(error) = upload.wait_for_capacity(PIECES_AT_A_TIME).await {
            // The failure is what counts; pieces left behind are the store's to expire.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.put(content.split_to(PIECE.min(content.len())));
    }
    upload.finish().await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    async fn part(content: Bytes) -> Part {
        let places = Arc::new(Semaphore::new(1));
        Part {
            checkpoint: "00000004-000002".into(),
            step: 4,
            name: "part-00000-of-00001.safetensors".into(),
            content,
            ordered: Instant::now(),
            stall: Duration::from_millis(7),
            deadline: Duration::from_secs(60),
            _place: places.acquire_owned().await.expect("a place"),
        }
    }

    #[tokio::test]
    async fn small_and_large_parts_are_stored_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
        for length in [10, 2 * PIECE + 5] {
            let content: Bytes = (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
            let part = part(content.clone()).await;
            let Upload::Stored(written) = store_part(root.clone(), part, Drill::default()).await else {
                panic!("not stored");
            };
            let found = root.join(&written.part).read().await.expect("readable").expect("there");
            assert!(found == content, "{length} bytes differ");
            assert_eq!(written.length, length as u64);
            assert_eq!(written.blake3, blake3::hash(&content).to_hex().as_str());
            assert_eq!(written.stall_seconds, 0.007);
        }
    }

    #[tokio::test]
    async fn a_store_that_fails_is_reported_and_no_more() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("a file");
        std::fs::write(&file, "in the way").expect("written");
        let root = Location::parse(file.to_str().expect("utf-8")).expect("a local path");
        for length in [10, PIECE + 1] {
            let part = part(vec![0; length].into()).await;
            let Upload::Failed(failed) = store_part(root.clone(), part, Drill::default()).await else {
                panic!("stored below a file");
            };
            assert!(
                failed.reason.contains("a%20file") || failed.reason.contains("a file"),
                "{}",
                failed.reason
            );
        }
    }
}
