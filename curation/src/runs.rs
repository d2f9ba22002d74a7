//! What runs of a job cost: no result depends on it, the report tells it.

use std::time::{SystemTime, UNIX_EPOCH};

use blip2_dataset::error::Result;
use blip2_store::record::{read_json, to_json};
use serde::{Deserialize, Serialize};

use crate::job::CurationJob;

/// A run of a job, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Rows of the tasks that were done.
    pub rows: u64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Workers that were started beside it; 1 for a share.
    pub workers: u32,
}

impl CurationJob {
    /// Adds a run to `runs/`.
    ///
    /// # Errors
    /// `StoreError::Failed`.
    pub async fn record_run(&self, run: &RunRecord) -> Result<()> {
        // Only its name comes from the clock.
        #[expect(clippy::disallowed_methods, reason = "a name that no other record has")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let name = format!("runs/{now}-{}.json", std::process::id());
        Ok(self.output().join(&name).put(to_json(run)?).await?)
    }

    /// All runs, in the order of their ends.
    ///
    /// # Errors
    /// `StoreError::Failed`,
    /// [`DatasetError::Malformed`](blip2_dataset::error::DatasetError::Malformed).
    pub async fn runs(&self) -> Result<Vec<RunRecord>> {
        let mut runs = Vec::new();
        for object in self.output().join("runs").list().await? {
            runs.extend(read_json::<RunRecord>(&object.location, "record of a run").await?);
        }
        Ok(runs)
    }
}
