//! The sources of a corpus, and how much of the training samples each is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{DatasetError, Result};

/// What a source weighs that has no weight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unweighted {
    /// As many as it has rows, so that every row of the corpus is used equally often.
    #[default]
    Rows,
    /// The square root of that: small sources are used more often than large ones.
    Root,
}

impl Unweighted {
    /// Whether it is the default.
    pub fn is_rows(&self) -> bool {
        *self == Self::Rows
    }
}

/// A source to open: files, and their weight in the mix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CorpusSource {
    /// Name for messages and reports.
    pub name: String,
    /// Paths, URLs, patterns.
    pub files: Vec<String>,
    /// Samples drawn from it, relative to the other sources' weights.
    pub weight: Option<f64>,
    /// What it weighs without one.
    pub unweighted: Unweighted,
}

/// A source of a manifest: consecutive files.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestSource {
    /// Name for messages and reports.
    pub name: String,
    /// As in [`CorpusSource::weight`]; without one, its number of rows.
    pub weight: Option<f64>,
    /// How many of the manifest's files are this source's, after those of the sources before.
    pub files: u32,
}

impl ManifestSource {
    /// The weight of the source with so many rows.
    ///
    /// # Errors
    /// [`DatasetError::Setting`] for one that is not positive or not finite.
    pub fn weight_of(&self, rows: u64) -> Result<f64> {
        let weight = self.weight.unwrap_or(rows as f64);
        if weight.is_finite() && weight > 0.0 {
            return Ok(weight);
        }
        Err(DatasetError::Setting(format!(
            "data.sources.{}.weight = {weight}: it must be a positive number; leave a source out to draw nothing from it",
            self.name
        )))
    }
}

/// Checks what can be checked before anything is read.
pub(super) fn check(sources: &[CorpusSource]) -> Result<()> {
    for source in sources {
        ManifestSource { name: source.name.clone(), weight: source.weight, files: 0 }.weight_of(1)?;
        if source.files.is_empty() {
            return Err(DatasetError::Setting(format!("data.sources.{}.files is empty", source.name)));
        }
    }
    Ok(())
}
