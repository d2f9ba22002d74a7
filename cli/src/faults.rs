//! `faults.jsonl`: the faults that a run's coordinators noticed, one line each, kept for its report.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use blip2_proto::v1::StatusReply;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A fault as it was noticed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FaultRecord {
    /// Seconds since 1970.
    pub(crate) unix_seconds: f64,
    /// Newest membership epoch then.
    pub(crate) epoch: u64,
    /// Committed steps then.
    pub(crate) step: u64,
    pub(crate) fault: String,
}

/// Writes every new fault until the sender of the status is gone. A file that cannot be written is said once
/// and ends nothing: faults are no part of the result.
pub(crate) async fn record_faults(mut status: watch::Receiver<StatusReply>, path: PathBuf) {
    let mut known = 0;
    loop {
        let is_gone = status.changed().await.is_err();
        let fresh = {
            let status = status.borrow_and_update();
            let fresh = fresh_faults(&status, known);
            known = known.max(status.fault_count);
            fresh
        };
        if let Err(error) = append(&path, &fresh) {
            tracing::warn!(path = %path.display(), %error, "faults are not recorded");
            return;
        }
        if is_gone {
            return;
        }
    }
}

/// The faults beyond the first `known`, as far as the status still has them.
fn fresh_faults(status: &StatusReply, known: u64) -> Vec<FaultRecord> {
    let fresh = usize::try_from(status.fault_count.saturating_sub(known)).unwrap_or(usize::MAX);
    let skipped = status.faults.len().saturating_sub(fresh);
    #[expect(clippy::disallowed_methods, reason = "the date of a fault, for people")]
    let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let record = |fault: &String| FaultRecord {
        unix_seconds,
        epoch: status.epoch,
        step: status.step,
        fault: fault.clone(),
    };
    status.faults[skipped..].iter().map(record).collect()
}

fn append(path: &Path, records: &[FaultRecord]) -> std::io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for record in records {
        text += &serde_json::to_string(record)?;
        text.push('\n');
    }
    OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

/// All faults of a file, oldest first; none where there is no file. Lines that cannot be read are passed
/// over.
pub(crate) fn read_faults(path: &Path) -> Vec<FaultRecord> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use blip2_run::layout;

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
        let path = folder.path().join(layout::FAULTS);
        for round in ["a", "b"] {
            let (sender, receiver) = watch::channel(status(0, &[]));
            #[expect(clippy::disallowed_methods, reason = "joined by the test")]
            let recorded = tokio::spawn(record_faults(receiver, path.clone()));
            sender.send_replace(status(1, &[round]));
            tokio::task::yield_now().await;
            sender.send_replace(status(2, &[round, "second"]));
            drop(sender);
            recorded.await.unwrap();
        }
        let faults: Vec<String> = read_faults(&path).into_iter().map(|record| record.fault).collect();
        assert_eq!(faults, ["a", "second", "b", "second"]);
        assert_eq!(read_faults(&path)[0].step, 7);
    }

    #[test]
    fn forgotten_faults_are_not_taken_for_new_ones() {
        let fresh = fresh_faults(&status(40, &["x", "y"]), 39);
        assert_eq!(fresh.len(), 1);
        assert_eq!(fresh[0].fault, "y");
        assert_eq!(fresh_faults(&status(40, &["x", "y"]), 3).len(), 2);
        assert!(fresh_faults(&status(40, &["x", "y"]), 40).is_empty());
    }
}
