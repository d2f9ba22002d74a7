//! A committed step as a line.

use std::collections::BTreeMap;

use blip2_proto::v1::CommittedStep;
use serde::{Deserialize, Serialize};

use crate::error::{RecordsError, Result};
use crate::spent::SpentSeconds;
use crate::values::serialize_values;

/// One committed step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Index of the step over all stages.
    pub step: u64,
    /// Its number, from 1.
    pub stage: u32,
    /// The stage by its name, and its task; empty in lines of older programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage_name: String,
    /// Its task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// Membership epoch in which it was committed.
    pub epoch: u64,
    /// Losses, gradient norm and learning rate; null where a value is not finite.
    #[serde(serialize_with = "serialize_values")]
    pub values: BTreeMap<String, Option<f64>>,
    /// Seconds the slowest member took.
    pub seconds: f64,
    /// Seconds the member that waited longest waited for data.
    pub data_wait_seconds: f64,
    /// Pictures of the global batch.
    pub samples: u64,
    /// Those of all steps up to this one.
    #[serde(default)]
    pub samples_seen: u64,
    /// Bytes that the workers sent each other.
    #[serde(default)]
    pub bytes_sent: u64,
    /// Bytes that all workers copied between device and host and within the host's memory.
    #[serde(default)]
    pub bytes_copied: u64,
    /// The step changed no parameter: a value, the gradient or the update is not finite.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// The mean loss has just risen to so many times its smallest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_rise: Option<f64>,
    /// Bytes of a card's memory held by the worker that held most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_bytes: Option<u64>,
    /// Kernels that were launched for the first time in the step, compiled or found on disk, by the worker
    /// that launched most of them; the warm-up's are with the first step's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels_compiled: Option<u32>,
    /// Seconds of the run up to this commit, by what they were spent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<SpentSeconds>,
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
            spent: step.spent.map(SpentSeconds::from),
        }
    }
}

/// The step's line, with its end.
pub(crate) fn line_of(record: &StepRecord) -> Result<String> {
    let mut line = serde_json::to_string(record)?;
    line.push('\n');
    Ok(line)
}

/// The records of a text, in its order; `place` is where it is from. A torn last line is none.
pub(crate) fn records_of(place: &str, text: &str) -> Result<Vec<StepRecord>> {
    let mut records = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(_) if index + 1 == lines.len() => {}
            Err(error) => {
                let place = format!("{place}:{}", index + 1);
                return Err(RecordsError::Line { place, reason: error.to_string() });
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A step of a run whose second stage begins with step 3.
    pub(crate) fn record(step: u64, loss: f64) -> StepRecord {
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
            spent: None,
        }
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
}
