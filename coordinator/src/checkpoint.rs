//! What makes a checkpoint: the content of its COMMIT object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{CoordinatorError, Result, StageCoverage};

/// Version of the COMMIT object and of the parts' layout.
pub(crate) const FORMAT: u32 = 2;
/// Name of the object that makes a checkpoint.
pub(crate) const COMMIT: &str = "COMMIT";
/// Name of the list of quarantined rows, in a checkpoint's folder and in the run's.
pub(crate) const QUARANTINE: &str = "quarantine.parquet";

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
    /// Stage of the last of these steps.
    pub stage: u32,
    /// The membership epoch that wrote it.
    pub epoch: u64,
    /// BLAKE3 of the training configuration.
    pub config_hash: String,
    /// BLAKE3 of the corpus manifest.
    pub manifest_hash: String,
    /// The parts, which together hold the state.
    pub parts: Vec<PartRecord>,
    /// The rows that these steps met and could not use, beside the parts; `None` only until it is written.
    pub quarantine: Option<PartRecord>,
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
pub struct PartRecord {
    /// Object name within the checkpoint's folder.
    pub name: String,
    /// Length in bytes.
    pub length: u64,
    /// BLAKE3 in hexadecimal.
    pub blake3: String,
}

impl CheckpointRecord {
    /// A record of the current format, without parts.
    pub(crate) fn new(step: u64, stage: u32, epoch: u64) -> Self {
        Self {
            format: FORMAT,
            name: checkpoint_name(step, epoch),
            run_id: String::new(),
            step,
            stage,
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

    /// The record of a state before the first step, of a run that begins with `stage`, without parts.
    pub fn beginning(stage: u32) -> Self {
        Self::new(0, stage, 0)
    }

    /// Everything that lies in the checkpoint's folder beside its COMMIT.
    pub fn objects(&self) -> impl Iterator<Item = &PartRecord> {
        self.parts.iter().chain(&self.quarantine)
    }

    /// Reads the COMMIT of the checkpoint of this name.
    ///
    /// # Errors
    /// [`CoordinatorError::Checkpoint`]: it is damaged, of an unknown format, or another checkpoint's.
    pub fn parse(name: &str, content: &[u8]) -> Result<Self> {
        let wrong = |reason: String| CoordinatorError::Checkpoint { name: name.to_owned(), reason };
        let record: Self = serde_json::from_slice(content)
            .map_err(|error| wrong(format!("its COMMIT is damaged: {error}")))?;
        record.fault(name).map_or(Ok(record), |fault| Err(wrong(fault)))
    }

    /// What is wrong with a record that was read from the folder `name`, if anything.
    fn fault(&self, name: &str) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("format {}; this program reads format {FORMAT}", self.format));
        }
        if self.name != name || parse_name(name) != Some((self.step, self.epoch)) {
            return Some(format!("its COMMIT is that of {}", self.name));
        }
        if self.parts.is_empty() || self.parts.iter().any(|part| !is_part_name(&part.name)) {
            return Some("its COMMIT names no parts, or unusable ones".into());
        }
        if self.quarantine.as_ref().is_none_or(|list| list.name != QUARANTINE) {
            return Some("its COMMIT names no list of quarantined rows".into());
        }
        None
    }
}

/// The name of the checkpoint after `step` committed steps, written in `epoch`. Names sort as (step, epoch).
pub(crate) fn checkpoint_name(step: u64, epoch: u64) -> String {
    format!("{step:08}-{epoch:06}")
}

/// Step and epoch of a checkpoint's name.
pub(crate) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (step, epoch) = name.split_once('-')?;
    Some((step.parse().ok()?, epoch.parse().ok()?))
}

/// Whether a part's name is that of an object directly in the checkpoint's folder, and of no other object in it.
pub(crate) fn is_part_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name != COMMIT
        && name != QUARANTINE
        && name.bytes().all(plain)
}
