//! What is written about a unit and about the whole job when they are done.

use std::collections::BTreeMap;
use std::fmt;

use blip2_store::Location;
use blip2_store::record::to_json;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// One file of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Its name in the job's folder.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// Of the whole file, hexadecimal.
    pub blake3: String,
}

/// A unit that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneRecord {
    pub(crate) unit: u64,
    pub(crate) rows_read: u64,
    pub(crate) rows: u64,
    pub(crate) parts: Vec<PartRecord>,
    /// Rows that cannot be used, by reason.
    pub(crate) rejected: BTreeMap<String, u64>,
    /// Why the source is damaged, or of no use, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) damaged: Option<DamagedSource>,
}

/// A source that is damaged, or holds no row that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedSource {
    /// Its place.
    pub source: String,
    /// What is wrong; of an archive with the byte.
    pub reason: String,
}

impl fmt::Display for DamagedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.reason)
    }
}

impl DoneRecord {
    pub(super) fn new(unit: u64) -> Self {
        Self { unit, rows_read: 0, rows: 0, parts: Vec::new(), rejected: BTreeMap::new(), damaged: None }
    }
}

/// What a job has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestSummary {
    /// Units of the job.
    pub units: u64,
    /// Units that are done, in this run or before.
    pub units_done: u64,
    /// Rows of the sources.
    pub rows_read: u64,
    /// Rows written.
    pub rows: u64,
    /// Files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows that cannot be used, by the name of the reason.
    pub rejected: BTreeMap<String, u64>,
    /// Sources that are damaged or hold no row that can be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedSource>,
}

impl IngestSummary {
    pub(super) fn new(units: u64) -> Self {
        Self {
            units,
            units_done: 0,
            rows_read: 0,
            rows: 0,
            files: 0,
            bytes: 0,
            rejected: BTreeMap::new(),
            damaged: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, done: &DoneRecord) {
        self.units_done += 1;
        self.rows_read += done.rows_read;
        self.rows += done.rows;
        self.files += done.parts.len() as u64;
        self.bytes += done.parts.iter().map(|part| part.bytes).sum::<u64>();
        for (reason, count) in &done.rejected {
            *self.rejected.entry(reason.clone()).or_insert(0) += count;
        }
        self.damaged.extend(done.damaged.clone());
    }
}

/// Where the done-record of a unit lies.
pub(crate) fn done_name(unit: u64) -> String {
    format!("done/{unit:06}.json")
}

pub(super) async fn write_summary(out: &Location, summary: &IngestSummary) -> Result<()> {
    Ok(out.join("summary.json").put(to_json(summary)?).await?)
}
