//! The configuration of a curation.

use blip2_dataset::corpus::columns::ColumnNames;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{CurationError, Result};
use crate::job::CurationSettings;
use crate::select::SelectionSettings;
use crate::settings::CurationModelSettings;

/// What is curated and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CurationConfig {
    /// Parquet files to curate: paths or URLs, `*` matches within the last path segment.
    pub input: Vec<String>,
    /// Folder or prefix to write to; a curation that was stopped goes on when it is given again.
    pub output: String,
    /// What the columns of the input are called, as `data.columns`.
    pub columns: ColumnNames,
    /// Row groups of a task, which is done, and done again after a stop, as a whole and becomes one file.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub task_row_groups: u32,
    /// Images with more pixels are not used.
    #[schemars(range(min = 1, max = 10_000_000_000_u64))]
    pub max_pixels: u64,
    /// Worker processes that `curate` starts on this machine.
    #[schemars(range(min = 0, max = 1024))]
    pub workers: u32,
    /// A task whose worker is silent for so long is given to another one.
    #[schemars(range(min = 1.0, max = 86_400.0))]
    pub lease_seconds: f64,
    /// A task that fails so often ends the curation.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub most_failures: u32,
    /// Which texts are kept.
    pub selection: SelectionSettings,
    /// The models.
    pub models: CurationModelSettings,
}

impl Default for CurationConfig {
    fn default() -> Self {
        Self {
            input: Vec::new(),
            output: String::new(),
            columns: ColumnNames::default(),
            task_row_groups: 8,
            max_pixels: 200_000_000,
            workers: 1,
            lease_seconds: 60.0,
            most_failures: 3,
            selection: SelectionSettings::default(),
            models: CurationModelSettings::default(),
        }
    }
}

impl CurationConfig {
    /// # Errors
    /// [`CurationError::Configuration`] that names the key.
    pub fn validate(&self) -> Result<()> {
        let refuse = |text: &str| Err(CurationError::Configuration(format!("curation.{text}")));
        if self.input.is_empty() {
            return refuse("input: name the Parquet files to curate");
        }
        if self.output.is_empty() {
            return refuse("output: name the folder or prefix to write to");
        }
        if !(1.0..=86_400.0).contains(&self.lease_seconds) {
            return refuse("lease_seconds: between 1 and 86400");
        }
        if self.most_failures == 0 {
            return refuse("most_failures: at least 1");
        }
        self.selection.validate()?;
        self.models.validate(self.selection.mode)
    }

    /// What decides the bytes that are written.
    pub fn settings(&self) -> CurationSettings {
        CurationSettings {
            columns: self.columns.clone(),
            task_row_groups: self.task_row_groups,
            max_pixels: self.max_pixels,
            selection: self.selection.clone(),
            models: self.models.identity(),
        }
    }
}
