//! The faults that a run's coordinators noticed, one line each: in `faults.jsonl` where the run lies on this
//! machine, else in segments in its store.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use blip2_proto::v1::StatusReply;
use blip2_run::layout;
use blip2_store::Location;
use tokio::sync::watch;

use crate::error::Result;
use crate::fault_record::{FaultRecord, News, faults_of, lines_of};
use crate::fault_segments::{FaultSegments, keep_in_store, newest_segment, read_segments};

/// Where the faults of a run go.
#[derive(Debug)]
pub struct FaultLog(Place);

#[derive(Debug)]
enum Place {
    /// Into a file of this machine.
    File(PathBuf),
    /// Into the run's store.
    Segments(FaultSegments),
}

impl FaultLog {
    /// The faults of a run whose folder is on this machine.
    pub fn file(folder: &Path) -> Self {
        Self(Place::File(folder.join(layout::FAULTS)))
    }

    /// Those of a run in a store.
    pub fn segments(root: Location) -> Self {
        Self(Place::Segments(FaultSegments::new(root)))
    }

    /// Writes every new fault until the sender of the status is gone. What cannot be written is said and ends
    /// nothing: faults are no part of the result.
    pub async fn keep(self, status: watch::Receiver<StatusReply>) {
        match self.0 {
            Place::File(path) => keep_in_file(status, path).await,
            Place::Segments(segments) => keep_in_store(segments, status).await,
        }
    }
}

async fn keep_in_file(mut status: watch::Receiver<StatusReply>, path: PathBuf) {
    let mut news = News::default();
    loop {
        let is_gone = status.changed().await.is_err();
        let fresh = news.of(&status.borrow_and_update());
        if let Err(error) = append(&path, &fresh) {
            tracing::warn!(path = %path.display(), %error, "faults are not recorded");
            return;
        }
        if is_gone {
            return;
        }
    }
}

fn append(path: &Path, records: &[FaultRecord]) -> std::io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let text = lines_of(records)?;
    OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

fn in_file(folder: &Path) -> Vec<FaultRecord> {
    faults_of(&std::fs::read_to_string(folder.join(layout::FAULTS)).unwrap_or_default())
}

/// All faults of the run in `root`, of each coordinator in the order in which it noticed them: from its
/// store, or where nothing is there, from the file in `folder`.
///
/// # Errors
/// The store fails.
pub async fn read_faults(root: &Location, folder: &Path) -> Result<Vec<FaultRecord>> {
    let stored = if root.is_local() { Vec::new() } else { read_segments(root).await? };
    Ok(if stored.is_empty() { in_file(folder) } else { stored })
}

/// The fault that was noticed last.
///
/// # Errors
/// As [`read_faults`].
pub async fn newest_fault(root: &Location, folder: &Path) -> Result<Option<FaultRecord>> {
    let stored = if root.is_local() { None } else { newest_segment(root).await?.pop() };
    Ok(stored.or_else(|| in_file(folder).pop()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(count: u64, newest: &[&str]) -> StatusReply {
        StatusReply {
            fault_count: count,
            faults: newest.iter().map(ToString::to_string).collect(),
            step: 7,
            ..StatusReply::default()
        }
    }

    #[tokio::test]
    async fn every_fault_is_recorded_once_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
        for round in ["a", "b"] {
            let (sender, receiver) = watch::channel(status(0, &[]));
            let kept = FaultLog::file(folder.path()).keep(receiver);
            let told = async {
                sender.send_replace(status(1, &[round]));
                tokio::task::yield_now().await;
                sender.send_replace(status(2, &[round, "second"]));
                drop(sender);
            };
            tokio::join!(kept, told);
        }
        let read = read_faults(&root, folder.path()).await.unwrap();
        let faults: Vec<&str> = read.iter().map(|record| record.fault.as_str()).collect();
        assert_eq!(faults, ["a", "second", "b", "second"]);
        assert_eq!(read[0].step, 7);
        let newest = newest_fault(&root, folder.path()).await.unwrap();
        assert_eq!(newest.as_ref(), read.last());
    }
}
