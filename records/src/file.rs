//! The file of a run on this machine.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{RecordsError, Result};
use crate::record::{StepRecord, line_of, records_of};

/// Bytes of lines that may wait for a disk that is full.
const MOST_WAITING: usize = 64 << 20;

/// Where the lines of a run go.
#[derive(Debug)]
pub(crate) struct FileLog {
    path: PathBuf,
    file: File,
    /// Lines that could not be written yet: a full disk ends no run.
    waiting: String,
    /// Whether a step was written: from the first one on, what an earlier coordinator wrote of the same steps
    /// is gone.
    begun: bool,
}

impl FileLog {
    /// Opens the log. Which lines are kept shows when the first step is committed: workers may hold steps
    /// that are in no checkpoint.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        Ok(Self { file: appending(&path)?, path, waiting: String::new(), begun: false })
    }

    /// Takes in a committed step. A file that cannot be written is said once, and tried again with every
    /// further step.
    pub(crate) fn record(&mut self, record: &StepRecord) -> Result<()> {
        let had_trouble = !self.waiting.is_empty();
        self.waiting += &line_of(record)?;
        if let Err(error) = self.write_waiting(record.step) {
            if !had_trouble {
                tracing::warn!("{error} It is tried again with every step.");
            }
            if self.waiting.len() > MOST_WAITING {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether all lines are written.
    pub(crate) fn is_whole(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Says what could not be written in the end.
    pub(crate) fn say_last(&self) {
        if !self.waiting.is_empty() {
            let lines = self.waiting.lines().count();
            tracing::warn!("{}: the last {lines} lines could not be written", self.path.display());
        }
    }

    /// Writes all lines that wait, of which the last is that of `step`.
    fn write_waiting(&mut self, step: u64) -> Result<()> {
        if !self.begun {
            let lines = self.waiting.lines().count() as u64;
            self.keep_before((step + 1).saturating_sub(lines))?;
            self.begun = true;
        }
        let length = self.file.metadata().map_err(|error| unwritable(&self.path, &error))?.len();
        if let Err(error) = self.file.write_all(self.waiting.as_bytes()) {
            // Half a line would spoil the next one; if it stays, the error at hand says enough.
            let _ = self.file.set_len(length);
            return Err(unwritable(&self.path, &error));
        }
        self.waiting.clear();
        Ok(())
    }

    /// Drops the lines of steps from `step` on: they are done again.
    fn keep_before(&mut self, step: u64) -> Result<()> {
        let mut kept = read(&self.path)?;
        kept.retain(|record| record.step < step);
        let text: String = kept.iter().map(line_of).collect::<Result<Vec<_>>>()?.concat();
        let beside = self.path.with_extension("jsonl.part");
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, &self.path))
            .map_err(|error| unwritable(&self.path, &error))?;
        self.file = appending(&self.path)?;
        Ok(())
    }
}

fn appending(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| unwritable(path, &error))
}

/// All records of a file by step; a step that was done again counts once, a torn last line not at all.
///
/// # Errors
/// It cannot be read, or has a line of another form.
pub fn read(path: &Path) -> Result<Vec<StepRecord>> {
    let text = std::fs::read_to_string(path).map_err(|error| RecordsError::Unreadable {
        place: path.display().to_string(),
        reason: error.to_string(),
    })?;
    let records = records_of(&path.display().to_string(), &text)?;
    let by_step: BTreeMap<u64, StepRecord> =
        records.into_iter().map(|record| (record.step, record)).collect();
    Ok(by_step.into_values().collect())
}

fn unwritable(path: &Path, error: &std::io::Error) -> RecordsError {
    RecordsError::Unwritable { place: path.display().to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use blip2_run::layout;

    use super::*;
    use crate::record::tests::record;

    #[test]
    fn a_resumed_log_holds_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(layout::METRICS);
        let mut log = FileLog::open(path.clone()).unwrap();
        for step in 0..4 {
            log.record(&record(step, 1.0)).unwrap();
        }
        drop(log);
        let torn = std::fs::read_to_string(&path).unwrap() + "{\"step\":4,";
        std::fs::write(&path, torn).unwrap();
        let mut log = FileLog::open(path.clone()).unwrap();
        for step in 2..5 {
            log.record(&record(step, 2.0)).unwrap();
        }
        let records = read(&path).unwrap();
        let steps: Vec<u64> = records.iter().map(|r| r.step).collect();
        assert_eq!(steps, [0, 1, 2, 3, 4]);
        assert_eq!(records[2].values["loss"], Some(2.0));
    }

    #[test]
    fn lines_wait_for_a_disk_that_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(layout::METRICS);
        std::fs::write(&path, line_of(&record(0, 1.0)).unwrap()).unwrap();
        let mut log = FileLog::open(path.clone()).unwrap();
        // Every write to this device fails as on a full disk.
        log.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        log.begun = true;
        for step in 1..4 {
            log.record(&record(step, 1.0)).unwrap();
        }
        log.file = appending(&path).unwrap();
        log.record(&record(4, 1.0)).unwrap();
        let steps: Vec<u64> = read(&path).unwrap().iter().map(|record| record.step).collect();
        assert_eq!(steps, [0, 1, 2, 3, 4]);
        assert!(log.waiting.is_empty());
    }

    #[test]
    fn a_broken_line_in_the_middle_is_an_error_and_nan_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(layout::METRICS);
        let mut log = FileLog::open(path.clone()).unwrap();
        log.record(&record(0, f64::NAN)).unwrap();
        assert_eq!(read(&path).unwrap()[0].values["loss"], None);
        let counted =
            StepRecord { values: BTreeMap::from([("tokens".to_owned(), Some(58.0))]), ..record(1, 1.0) };
        log.record(&counted).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"tokens\":58}"));
        assert_eq!(read(&path).unwrap()[1], counted);
        std::fs::write(&path, "nonsense\n{}\n").unwrap();
        let text = read(&path).unwrap_err().to_string();
        assert!(text.contains(":1:"), "{text}");
    }
}
