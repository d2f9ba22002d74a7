//! What makes a checkpoint: the content of its COMMIT object.

use std::collections::BTreeMap;

use blip2_store::Location;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::coverage::StageCoverage;
use crate::layout::{COMMIT, QUARANTINE, checkpoint_name, is_shard_name, parse_checkpoint_name};
use crate::schedule::Schedule;
use crate::{Result, RunError};

/// Version of the COMMIT object and of the parts' layout.
const FORMAT: u32 = 2;

/// The content of a COMMIT object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Version of the format.
    pub format: u32,
    /// The checkpoint's folder below `checkpoints/`: `<step>-<epoch>`.
    pub name: String,
    /// The run.
    pub run_id: String,
    /// Steps committed before it was written, which is the index of the next step.
    pub step: u64,
    /// Number of the stage of the last of these steps; before the first step, of the stage that begins.
    pub stage: u32,
    /// That stage's name; empty in a COMMIT that was written before stages had names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage_name: String,
    /// That stage's task; empty in a COMMIT that was written before it named the task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// The membership epoch that wrote it.
    pub epoch: u64,
    /// BLAKE3 of the training configuration.
    pub config_hash: String,
    /// BLAKE3 of the corpus manifest.
    pub manifest_hash: String,
    /// The parts, which together hold the state.
    pub parts: Vec<ShardRecord>,
    /// The rows that these steps met and could not use, beside the parts; `None` only until it is written.
    pub quarantine: Option<ShardRecord>,
    /// The samples that these steps used, of every stage begun.
    pub coverage: StageCoverage,
    /// Values (losses, learning rate) of the last step, as far as they are finite.
    pub values: BTreeMap<String, f64>,
    /// Those of its steps that changed no parameter, because what they came to is not a finite number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_steps: Vec<u64>,
}

/// One object of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Object name within the checkpoint's folder.
    pub name: String,
    /// Length in bytes.
    pub length: u64,
    /// BLAKE3 in hexadecimal.
    pub blake3: String,
}

impl ShardRecord {
    /// What a COMMIT says of an object with this content.
    pub fn of(name: &str, content: &[u8]) -> Self {
        let blake3 = blake3::hash(content).to_hex().to_string();
        Self { name: name.to_owned(), length: content.len() as u64, blake3 }
    }

    /// Whether this is the content that the COMMIT speaks of.
    pub fn is_of(&self, content: &[u8]) -> bool {
        *self == Self::of(&self.name, content)
    }
}

impl CheckpointRecord {
    /// A record of the current format of the state after `step` steps, written in `epoch`, without shards.
    pub fn new(schedule: &Schedule, step: u64, epoch: u64) -> Self {
        let number = schedule.stage_of(step.saturating_sub(1));
        let stage = schedule.stage(number);
        Self {
            format: FORMAT,
            name: checkpoint_name(step, epoch),
            run_id: String::new(),
            step,
            stage: number,
            stage_name: stage.map(|stage| stage.name.clone()).unwrap_or_default(),
            task: stage.map(|stage| stage.task.clone()).unwrap_or_default(),
            epoch,
            config_hash: String::new(),
            manifest_hash: String::new(),
            parts: Vec::new(),
            quarantine: None,
            coverage: StageCoverage::default(),
            values: BTreeMap::new(),
            skipped_steps: Vec::new(),
        }
    }

    /// Everything that lies in the checkpoint's folder beside its COMMIT.
    pub fn objects(&self) -> impl Iterator<Item = &ShardRecord> {
        self.parts.iter().chain(&self.quarantine)
    }

    /// Reads the COMMIT of the checkpoint of this name.
    ///
    /// # Errors
    /// [`RunError::Checkpoint`]: it is damaged, of an unknown format, or another checkpoint's.
    pub fn parse(name: &str, content: &[u8]) -> Result<Self> {
        let wrong = |reason: String| RunError::Checkpoint { name: name.to_owned(), reason };
        let record: Self = serde_json::from_slice(content)
            .map_err(|error| wrong(format!("its COMMIT is damaged: {error}")))?;
        record.fault(name).map_or(Ok(record), |fault| Err(wrong(fault)))
    }

    fn other_format(&self) -> Option<String> {
        (self.format != FORMAT).then(|| format!("format {}; this program reads format {FORMAT}", self.format))
    }

    /// What is wrong with a record that was read from the folder `name`, if anything.
    fn fault(&self, name: &str) -> Option<String> {
        if let Some(fault) = self.other_format() {
            return Some(fault);
        }
        if self.name != name || parse_checkpoint_name(name) != Some((self.step, self.epoch)) {
            return Some(format!("its COMMIT is that of {}", self.name));
        }
        if self.parts.is_empty() || self.parts.iter().any(|part| !is_shard_name(&part.name)) {
            return Some("its COMMIT names no parts, or unusable ones".into());
        }
        if self.quarantine.as_ref().is_none_or(|list| list.name != QUARANTINE) {
            return Some("its COMMIT names no list of quarantined rows".into());
        }
        None
    }
}

/// Reads the checkpoint in `folder`, wherever it was copied to: its COMMIT, and its shards in order, each
/// compared with what COMMIT says.
///
/// # Errors
/// [`RunError::Checkpoint`]: no COMMIT, one of another format, a missing shard, or a shard of another length
/// or BLAKE3.
pub async fn read_verified(folder: &Location) -> Result<(CheckpointRecord, Vec<Bytes>)> {
    let wrong = |reason: String| RunError::Checkpoint { name: folder.to_string(), reason };
    let commit = folder.join(COMMIT).read().await?;
    let commit =
        commit.ok_or_else(|| wrong("it has no COMMIT object: it was never finished, or is none".into()))?;
    let record: CheckpointRecord =
        serde_json::from_slice(&commit).map_err(|error| wrong(format!("COMMIT is unreadable: {error}")))?;
    if let Some(fault) = record.other_format() {
        return Err(wrong(fault));
    }
    let mut shards = Vec::with_capacity(record.parts.len());
    for shard in &record.parts {
        let content = folder.join(&shard.name).read().await?;
        let content = content.ok_or_else(|| wrong(format!("part `{}` is missing", shard.name)))?;
        if !shard.is_of(&content) {
            return Err(wrong(format!("part `{}` is not what COMMIT says (length or BLAKE3)", shard.name)));
        }
        shards.push(content);
    }
    Ok((record, shards))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::tests::schedule;

    #[test]
    fn a_record_names_the_stage_of_its_last_step() {
        let schedule = schedule(&[(0, 1), (2, 1), (3, 1)]);
        let of = |step| {
            let record = CheckpointRecord::new(&schedule, step, 7);
            (record.stage, record.stage_name, record.name)
        };
        assert_eq!(of(0), (2, "stage 2".into(), "00000000-000007".into()));
        assert_eq!(of(2), (2, "stage 2".into(), "00000002-000007".into()));
        assert_eq!(of(3), (3, "stage 3".into(), "00000003-000007".into()));
    }

    #[test]
    fn a_commit_of_before_stages_had_names_is_read_and_written_as_it_was() {
        let name = "00000002-000007";
        let before = serde_json::json!({
            "format": 2, "name": name, "run_id": "r", "step": 2, "stage": 1, "epoch": 7,
            "config_hash": "c", "manifest_hash": "m",
            "parts": [{"name": "part-00000-of-00001.safetensors", "length": 3, "blake3": "a"}],
            "quarantine": {"name": "quarantine.parquet", "length": 9, "blake3": "b"},
            "coverage": [], "values": {"loss": 1.5},
        });
        let record = CheckpointRecord::parse(name, before.to_string().as_bytes()).expect("readable");
        assert_eq!((record.stage, record.stage_name.as_str(), record.task.as_str()), (1, "", ""));
        assert_eq!(serde_json::to_value(&record).expect("plain"), before);
        let named = CheckpointRecord { task: "contrast".into(), ..record };
        assert_eq!(serde_json::to_value(named).expect("plain")["task"], "contrast");
    }
}
