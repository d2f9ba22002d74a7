//! `metrics.jsonl`: one line for every committed step of a run.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use blip2_coordinator::CommittedStep;
use blip2_pages::chart::Series;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::CliError;
use crate::figures::serialize_values;
use crate::measured::StepNumbers;

/// Bytes of lines that may wait for a disk that is full.
const MOST_WAITING: usize = 64 << 20;

/// One committed step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    /// Index of the step over all stages.
    pub(crate) step: u64,
    pub(crate) stage: u32,
    /// The stage by its name, and its task; empty in lines of older programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) stage_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) task: String,
    /// Membership epoch in which it was committed.
    pub(crate) epoch: u64,
    /// Losses, gradient norm and learning rate; null where a value is not finite.
    #[serde(serialize_with = "serialize_values")]
    pub(crate) values: BTreeMap<String, Option<f64>>,
    pub(crate) seconds: f64,
    pub(crate) data_wait_seconds: f64,
    /// Pictures of the global batch.
    pub(crate) samples: u64,
    /// Those of all steps up to this one.
    #[serde(default)]
    pub(crate) samples_seen: u64,
    /// Bytes that the workers sent each other.
    #[serde(default)]
    pub(crate) bytes_sent: u64,
    /// Bytes that all workers copied between device and host and within the host's memory.
    #[serde(default)]
    pub(crate) bytes_copied: u64,
    /// The step changed no parameter: a value, the gradient or the update is not finite.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) skipped: bool,
    /// The mean loss has just risen to so many times its smallest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loss_rise: Option<f64>,
    /// Bytes of a card's memory held by the worker that held most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_bytes: Option<u64>,
    /// Kernels that the worker which compiled most compiled for the step; the warm-up's are with the first
    /// step's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernels_compiled: Option<u32>,
}

impl From<CommittedStep> for StepRecord {
    fn from(step: CommittedStep) -> Self {
        Self {
            step: step.step,
            stage: step.stage,
            stage_name: step.stage_name,
            task: step.task,
            epoch: step.epoch,
            values: step
                .values
                .into_iter()
                .map(|named| (named.name, named.value.is_finite().then_some(named.value)))
                .collect(),
            seconds: step.seconds,
            data_wait_seconds: step.data_wait_seconds,
            samples: step.samples,
            samples_seen: step.samples_seen,
            bytes_sent: step.bytes_sent,
            bytes_copied: step.bytes_copied,
            skipped: step.skipped,
            loss_rise: step.loss_rise,
            device_bytes: step.device_bytes,
            kernels_compiled: step.kernels_compiled,
        }
    }
}

/// Where the lines of a run go.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    path: PathBuf,
    file: File,
    /// Lines that could not be written yet: a full disk ends no run.
    waiting: String,
    /// Whether a step was written: from the first one on, what an earlier coordinator wrote of the same steps
    /// is gone.
    begun: bool,
}

impl MetricsLog {
    /// Opens the log. Which lines are kept shows when the first step is committed: workers may hold steps
    /// that are in no checkpoint.
    pub(crate) fn open(path: PathBuf) -> Result<Self, CliError> {
        Ok(Self { file: appending(&path)?, path, waiting: String::new(), begun: false })
    }

    /// Takes in a committed step. A file that cannot be written is said once, and tried again with every
    /// further step.
    fn record(&mut self, record: &StepRecord) -> Result<(), CliError> {
        let had_trouble = !self.waiting.is_empty();
        self.waiting += &line_of(record)?;
        if let Err(error) = self.write_waiting(record.step) {
            if !had_trouble {
                eprintln!("warning: {error} It is tried again with every step.");
            }
            if self.waiting.len() > MOST_WAITING {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes all lines that wait, of which the last is that of `step`.
    fn write_waiting(&mut self, step: u64) -> Result<(), CliError> {
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
    fn keep_before(&mut self, step: u64) -> Result<(), CliError> {
        let mut kept = read(&self.path)?;
        kept.retain(|record| record.step < step);
        let text: String = kept.iter().map(line_of).collect::<Result<Vec<_>, _>>()?.concat();
        let beside = self.path.with_extension("jsonl.part");
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, &self.path))
            .map_err(|error| unwritable(&self.path, &error))?;
        self.file = appending(&self.path)?;
        Ok(())
    }
}

fn appending(path: &Path) -> Result<File, CliError> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| unwritable(path, &error))
}

/// Writes every committed step until the sender is gone; returns how many there were.
pub(crate) async fn write_all(
    mut log: MetricsLog,
    mut steps: mpsc::Receiver<CommittedStep>,
    mut shown: StepNumbers,
) -> Result<u64, CliError> {
    let mut count = 0;
    while let Some(step) = steps.recv().await {
        let record = StepRecord::from(step);
        shown.record(&record);
        log.record(&record)?;
        count += 1;
    }
    if !log.waiting.is_empty() {
        let lines = log.waiting.lines().count();
        eprintln!("warning: {}: the last {lines} lines could not be written", log.path.display());
    }
    Ok(count)
}

/// All records of a log by step; a step that was done again counts once, a torn last line not at all.
pub(crate) fn read(path: &Path) -> Result<Vec<StepRecord>, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::failed(format!("{}: cannot read the metrics: {error}", path.display())))?;
    let mut by_step = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str::<StepRecord>(line) {
            Ok(record) => {
                by_step.insert(record.step, record);
            }
            Err(_) if index + 1 == lines.len() => {}
            Err(error) => {
                let place = format!("{}:{}", path.display(), index + 1);
                return Err(CliError::failed(format!("{place}: this is not a line of metrics: {error}")));
            }
        }
    }
    Ok(by_step.into_values().collect())
}

/// The named values of one stage as lines of a chart, steps counted from the stage's start.
pub(crate) fn series(records: &[StepRecord], stage: u32, names: &[(&str, &str)]) -> Vec<Series> {
    let own: Vec<&StepRecord> = records.iter().filter(|record| record.stage == stage).collect();
    let first = own.first().map_or(0, |record| record.step);
    names
        .iter()
        .map(|(key, name)| Series {
            name: (*name).to_owned(),
            points: own
                .iter()
                .filter_map(|record| {
                    let value = record.values.get(*key)?;
                    Some((record.step - first, value.unwrap_or(f64::NAN)))
                })
                .collect(),
        })
        .filter(|line: &Series| !line.points.is_empty())
        .collect()
}

fn line_of(record: &StepRecord) -> Result<String, CliError> {
    let mut line = serde_json::to_string(record)
        .map_err(|error| CliError::failed(format!("a step's metrics do not serialise: {error}")))?;
    line.push('\n');
    Ok(line)
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("{}: cannot write the metrics: {error}; is the disk full?", path.display()))
}

#[cfg(test)]
mod tests {
    use blip2_run::layout;

    use super::*;

    fn record(step: u64, loss: f64) -> StepRecord {
        StepRecord {
            step,
            stage: 1 + u32::from(step >= 3),
            stage_name: if step >= 3 { "generate" } else { "represent" }.into(),
            task: if step >= 3 { "generate" } else { "contrast" }.into(),
            epoch: 1,
            values: BTreeMap::from([("loss".to_owned(), loss.is_finite().then_some(loss))]),
            seconds: 0.5,
            data_wait_seconds: 0.1,
            samples: 64,
            samples_seen: 64 * (step + 1),
            bytes_sent: 1000,
            bytes_copied: 2000,
            skipped: !loss.is_finite(),
            loss_rise: None,
            device_bytes: None,
            kernels_compiled: None,
        }
    }

    #[test]
    fn a_resumed_log_holds_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(layout::METRICS);
        let mut log = MetricsLog::open(path.clone()).unwrap();
        for step in 0..4 {
            log.record(&record(step, 1.0)).unwrap();
        }
        drop(log);
        let torn = std::fs::read_to_string(&path).unwrap() + "{\"step\":4,";
        std::fs::write(&path, torn).unwrap();
        let mut log = MetricsLog::open(path.clone()).unwrap();
        for step in 2..5 {
            log.record(&record(step, 2.0)).unwrap();
        }
        let records = read(&path).unwrap();
        let steps: Vec<u64> = records.iter().map(|r| r.step).collect();
        assert_eq!(steps, [0, 1, 2, 3, 4]);
        assert_eq!(records[2].values["loss"], Some(2.0));
        let lines = series(&records, 2, &[("loss", "total"), ("itc", "contrastive")]);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].points, [(0, 2.0), (1, 2.0)]);
    }

    #[test]
    fn lines_name_stage_and_task_and_lines_without_them_are_read() {
        let line = line_of(&record(3, 1.0)).unwrap();
        assert!(
            line.starts_with(r#"{"step":3,"stage":2,"stage_name":"generate","task":"generate","epoch":1,"#)
        );
        let older = line.replace(r#""stage_name":"generate","task":"generate","#, "");
        assert_ne!(older, line);
        let read: StepRecord = serde_json::from_str(&older).unwrap();
        assert_eq!(read, StepRecord { stage_name: String::new(), task: String::new(), ..record(3, 1.0) });
        assert_eq!(line_of(&read).unwrap(), older, "a line that is kept stays as it was");
    }

    #[test]
    fn lines_wait_for_a_disk_that_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(layout::METRICS);
        std::fs::write(&path, line_of(&record(0, 1.0)).unwrap()).unwrap();
        let mut log = MetricsLog::open(path.clone()).unwrap();
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
        let mut log = MetricsLog::open(path.clone()).unwrap();
        log.record(&record(0, f64::NAN)).unwrap();
        assert!(series(&read(&path).unwrap(), 1, &[("loss", "total")])[0].points[0].1.is_nan());
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
