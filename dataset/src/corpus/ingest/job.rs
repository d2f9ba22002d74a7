//! The record that pins a job: what is ingested, how, and how it is cut into units.

use blip2_store::error::StoreError;
use blip2_store::record::{read_json, to_json};
use blip2_store::{Location, put_create};
use serde::{Deserialize, Serialize};

use super::settings::IngestSettings;
use super::sources::Sources;
use super::unit::{PinnedSource, Unit};
use crate::error::Result;

/// Name of the record.
pub(crate) const JOB_FILE: &str = "ingest.json";

/// Version of the layout and of the record.
const FORMAT: u32 = 1;

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    format: u32,
    settings: IngestSettings,
    sources: Vec<PinnedSource>,
    pub(super) units: Vec<Unit>,
}

impl Job {
    /// Units.
    pub(crate) fn unit_count(&self) -> u64 {
        self.units.len() as u64
    }

    /// Locations of the sources.
    pub(super) fn source_names(&self) -> Vec<String> {
        self.sources.iter().map(|source| source.location.clone()).collect()
    }

    /// Writes the record, or compares with the one that is there.
    pub(super) async fn begin(out: &Location, sources: &Sources, settings: &IngestSettings) -> Result<Self> {
        let place = out.join(JOB_FILE);
        if let Some(known) = read_json::<Self>(&place, "ingestion record").await? {
            known.compare(&place, sources.pinned(), settings)?;
            return Ok(known);
        }
        let job = Self {
            format: FORMAT,
            settings: settings.clone(),
            sources: sources.pinned().to_vec(),
            units: sources.units(settings.unit_rows).await?,
        };
        if put_create(&place, to_json(&job)?).await? {
            return Ok(job);
        }
        // Another process was faster; it has to mean the same job.
        let known = read_json::<Self>(&place, "ingestion record").await?.unwrap_or_else(|| job.clone());
        known.compare(&place, sources.pinned(), settings)?;
        Ok(known)
    }

    fn compare(&self, place: &Location, sources: &[PinnedSource], settings: &IngestSettings) -> Result<()> {
        let other = |reason: String| {
            Err(StoreError::Changed {
                file: place.to_string(),
                reason: format!("{reason}; choose another --out"),
            }
            .into())
        };
        if self.format != FORMAT {
            return other(format!("it has format {}, this program writes {FORMAT}", self.format));
        }
        let known = IngestSettings { threads: settings.threads, ..self.settings.clone() };
        if known != *settings {
            return other("it was begun with other settings".to_owned());
        }
        for (before, now) in self.sources.iter().zip(sources) {
            if before.location != now.location {
                return other(format!("its sources differ: `{}` was `{}`", now.location, before.location));
            }
            if before != now {
                return Err(StoreError::Changed {
                    file: now.location.clone(),
                    reason: format!(
                        "{} bytes, tag {:?}; now {} bytes, tag {:?}",
                        before.bytes, before.etag, now.bytes, now.etag
                    ),
                }
                .into());
            }
        }
        match self.sources.len() == sources.len() {
            true => Ok(()),
            false => other(format!("it has {} sources, now there are {}", self.sources.len(), sources.len())),
        }
    }
}
