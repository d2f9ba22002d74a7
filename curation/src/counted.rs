//! What the tasks of a job have come to that are done, counted while they are handed out or done, for those
//! who watch. Nothing is decided on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blip2_dataset::quarantine::QuarantineRecord;
use blip2_leases::server::LeasedWork;
use futures::stream::{self, StreamExt as _};

use crate::finish::{CurationSummary, TaskDone};
use crate::job::CurationJob;

/// Reasons that are told apart; rows of all others are [`OTHER`].
const MOST_REASONS: usize = 16;
/// The reason of the rows beyond `MOST_REASONS`.
pub const OTHER: &str = "something else";
/// Rejected rows that are named.
const MOST_NEWEST: usize = 8;
/// Records that are read at a time.
const AT_A_TIME: usize = 16;

/// The counts; clones are the same ones.
#[derive(Debug, Clone, Default)]
pub struct Counted(Arc<Mutex<Counts>>);

/// What the tasks that are done have come to.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// In numbers.
    pub summary: CurationSummary,
    /// Rows that cannot be used, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// The last of them, newest first.
    pub newest: Vec<QuarantineRecord>,
    known: BTreeSet<u64>,
}

impl Counted {
    /// The counts as they are.
    pub fn get(&self) -> Counts {
        self.counts().clone()
    }

    /// Counts tasks that were done before, unless they are counted already. A record that cannot be read is
    /// said, and missing.
    pub(crate) async fn count_earlier(&self, job: &CurationJob, done: BTreeSet<u64>) {
        let counting = |task: u64| async move {
            match job.task_done(task).await {
                Ok(Some(done)) => self.count(job, &done).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(task, %error, "what a task has come to is not shown"),
            }
        };
        stream::iter(done).for_each_concurrent(AT_A_TIME, counting).await;
    }

    /// Counts a task that is done, once.
    pub(crate) async fn count(&self, job: &CurationJob, done: &TaskDone) {
        if !self.counts().take(job.tasks().len() as u64, done) || done.rejected == 0 {
            return;
        }
        match job.rejected_rows(done.task).await {
            Ok(rows) => self.counts().reject(&rows),
            Err(error) => tracing::warn!(task = done.task, %error, "its rejected rows are not shown"),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Whether the task was not counted before.
    fn take(&mut self, tasks: u64, done: &TaskDone) -> bool {
        self.summary.tasks = tasks;
        let is_new = self.known.insert(done.task);
        if is_new {
            self.summary.add(done);
        }
        is_new
    }

    fn reject(&mut self, rows: &[QuarantineRecord]) {
        for row in rows {
            let is_named = self.rejected.contains_key(&row.reason) || self.rejected.len() < MOST_REASONS;
            let reason = if is_named { row.reason.as_str() } else { OTHER };
            *self.rejected.entry(reason.to_owned()).or_insert(0) += 1;
        }
        let newest = rows.iter().rev().chain(&self.newest).take(MOST_NEWEST);
        self.newest = newest.cloned().collect();
    }
}

/// A job whose tasks are counted as they are done.
#[derive(Debug)]
pub(crate) struct CountedJob {
    pub(crate) job: CurationJob,
    pub(crate) counted: Counted,
}

#[tonic::async_trait]
impl LeasedWork for CountedJob {
    async fn rows_done(&self, task: u64) -> std::result::Result<Option<u64>, String> {
        let record = self.job.task_done(task).await.map_err(|error| error.to_string())?;
        let Some(done) = record else { return Ok(None) };
        self.counted.count(&self.job, &done).await;
        Ok(Some(done.rows_read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(reason: &str, sample: u64) -> QuarantineRecord {
        QuarantineRecord {
            key: format!("key-{sample}"),
            file: "a.parquet".into(),
            row_group: 0,
            row: 0,
            reason: reason.into(),
            sample,
            stage: 0,
        }
    }

    #[test]
    fn reasons_and_rows_that_are_shown_are_bounded() {
        let mut counts = Counts::default();
        for number in 0..40 {
            counts.reject(&[row(&format!("reason {number}"), number), row("reason 0", 100 + number)]);
        }
        assert_eq!(counts.rejected.len(), MOST_REASONS + 1);
        assert_eq!((counts.rejected["reason 0"], counts.rejected[OTHER]), (41, 40 - MOST_REASONS as u64));
        assert_eq!(counts.rejected.values().sum::<u64>(), 80);
        let newest: Vec<u64> = counts.newest.iter().map(|row| row.sample).collect();
        assert_eq!(newest, [139, 39, 138, 38, 137, 37, 136, 36]);
    }
}
