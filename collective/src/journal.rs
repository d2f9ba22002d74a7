//! The last collectives of this member: what is looked at when one does not get on.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{CollectiveError, Result};

/// Collectives that are remembered.
pub const KEPT: usize = 256;

/// What a collective does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`crate::Exchange::all_gather`].
    AllGather,
    /// [`crate::Exchange::all_to_all`].
    AllToAll,
    /// [`crate::Exchange::tree_all_reduce`].
    AllReduce,
}

impl Kind {
    /// Its name, as in logs and traces.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllGather => "all_gather",
            Self::AllToAll => "all_to_all",
            Self::AllReduce => "all_reduce",
        }
    }
}

/// How far a collective is.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// It is in progress.
    Running,
    /// All members have what is due to them from this one, and this one from them.
    Done(Duration),
    /// It ended otherwise, after this time.
    Failed(Duration, CollectiveError),
    /// Its caller left it after this time, for a step that was aborted.
    Left(Duration),
}

/// A collective of this member.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Collectives of this member before it.
    pub number: u64,
    /// What it does.
    pub kind: Kind,
    /// The membership epoch.
    pub epoch: u64,
    /// The run's step.
    pub step: u64,
    /// Its name among those of the step.
    pub tag: String,
    /// Bytes that this member brings in.
    pub bytes: u64,
    /// When it began.
    pub began: Instant,
    /// How far it is.
    pub progress: Progress,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, kind, epoch, step, tag, bytes, progress, .. } = self;
        write!(f, "#{number} epoch {epoch} step {step} {} {tag}, {bytes} bytes: ", kind.name())?;
        let seconds = |time: &Duration| time.as_secs_f64();
        match progress {
            Progress::Running => write!(f, "running for {:.3} s", seconds(&self.began.elapsed())),
            Progress::Done(time) => write!(f, "done in {:.3} s", seconds(time)),
            Progress::Failed(time, error) => write!(f, "failed after {:.3} s: {error}", seconds(time)),
            Progress::Left(time) => write!(f, "left after {:.3} s", seconds(time)),
        }
    }
}

/// The last [`KEPT`] collectives, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    /// Collectives so far.
    count: u64,
    entries: VecDeque<Entry>,
    /// Epoch and step of the one that was told last.
    told: Option<(u64, u64)>,
}

impl Journal {
    /// A collective begins.
    pub(crate) fn begin(&self, kind: Kind, epoch: u64, step: u64, tag: &str, bytes: u64) -> Line<'_> {
        let mut pages = self.pages();
        let number = pages.count;
        pages.count += 1;
        if pages.entries.len() == KEPT {
            pages.entries.pop_front();
        }
        let (tag, began) = (tag.to_owned(), Instant::now());
        let progress = Progress::Running;
        pages.entries.push_back(Entry { number, kind, epoch, step, tag, bytes, began, progress });
        Line { journal: self, number, began, has_ended: false }
    }

    /// Those of a step that are remembered, oldest first.
    pub(crate) fn of(&self, step: u64) -> Vec<Entry> {
        self.pages().entries.iter().filter(|entry| entry.step == step).cloned().collect()
    }

    fn end(&self, number: u64, progress: Progress) {
        let mut pages = self.pages();
        // Of more than `KEPT` at a time the oldest is forgotten.
        if let Some(entry) = pages.entries.iter_mut().rev().find(|entry| entry.number == number) {
            entry.progress = progress;
        }
    }

    /// The whole journal as text, once for a step that hangs: its collectives time out together.
    fn told(&self, number: u64) -> Option<String> {
        let mut pages = self.pages();
        let entry = pages.entries.iter().rev().find(|entry| entry.number == number)?;
        let place = Some((entry.epoch, entry.step));
        if pages.told == place {
            return None;
        }
        pages.told = place;
        Some(pages.entries.iter().map(|entry| format!("\n  {entry}")).collect())
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A collective in progress. Dropped before its end, it was left.
pub(crate) struct Line<'a> {
    journal: &'a Journal,
    number: u64,
    began: Instant,
    has_ended: bool,
}

impl Line<'_> {
    /// It ended so. One that timed out tells the whole journal in the log.
    pub(crate) fn ended<T>(mut self, result: Result<T>) -> Result<T> {
        let time = self.began.elapsed();
        let progress = match &result {
            Ok(_) => Progress::Done(time),
            Err(error) => Progress::Failed(time, error.clone()),
        };
        self.journal.end(self.number, progress);
        if matches!(result, Err(CollectiveError::Timeout { .. }))
            && let Some(collectives) = self.journal.told(self.number)
        {
            tracing::warn!("a collective does not get on; the last of this member:{collectives}");
        }
        self.has_ended = true;
        result
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.journal.end(self.number, Progress::Left(self.began.elapsed()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_collectives_are_remembered_with_how_they_ended() {
        let journal = Journal::default();
        let begin = |step| journal.begin(Kind::AllReduce, 1, step, "gradient", 8);
        for step in 0..KEPT as u64 + 3 {
            begin(step).ended(Ok(())).unwrap();
        }
        let failed: Result<()> = begin(1000).ended(Err(CollectiveError::Closed));
        assert_eq!(failed, Err(CollectiveError::Closed));
        drop(begin(1001));
        let running = begin(1002);
        let entries: Vec<Entry> = journal.pages().entries.iter().cloned().collect();
        assert_eq!(entries.len(), KEPT);
        assert_eq!(journal.of(1000), [entries[KEPT - 3].clone()]);
        assert_eq!(journal.of(0), [], "forgotten");
        assert_eq!((entries[0].number, entries[KEPT - 1].number), (6, KEPT as u64 + 5));
        assert!(matches!(entries[0].progress, Progress::Done(_)));
        assert!(matches!(entries[KEPT - 3].progress, Progress::Failed(_, CollectiveError::Closed)));
        assert!(matches!(entries[KEPT - 2].progress, Progress::Left(_)));
        let last = entries[KEPT - 1].to_string();
        assert!(last.contains("step 1002 all_reduce gradient, 8 bytes: running"), "{last}");
        drop(running);
    }

    #[test]
    fn a_step_that_hangs_is_told_once() {
        let journal = Journal::default();
        let (first, second) = (
            journal.begin(Kind::AllGather, 1, 5, "features", 4),
            journal.begin(Kind::AllReduce, 1, 5, "gradient", 8),
        );
        let told = journal.told(first.number).unwrap();
        assert!(told.contains("features") && told.contains("gradient"), "{told}");
        assert_eq!(journal.told(second.number), None);
        let next = journal.begin(Kind::AllGather, 1, 6, "features", 4);
        assert!(journal.told(next.number).is_some());
    }
}
