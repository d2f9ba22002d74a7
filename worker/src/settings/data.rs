//! The corpus and its use.

use std::collections::BTreeMap;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::{CorpusSource, Unweighted};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Result, WorkerError};

/// The corpus and its use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// Parquet files or WebDataset archives, folders of them, or patterns: `*`, `?`, `[a-z]`, `**`, `{a,b}`,
    /// `{00000..01243}`; a path or URL that exists is meant as it is written.
    pub train: Vec<String>,
    /// Sources by name, in the place of `train`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, SourceSettings>,
    /// What a source without a weight weighs: as many as it has `rows`, or their square `root`.
    #[serde(skip_serializing_if = "Unweighted::is_rows")]
    #[schemars(extend("x-stored-if-set" = "rows"))]
    pub unweighted: Unweighted,
    /// What the columns of the files are called.
    pub columns: ColumnNames,
    /// Row groups a slot draws from at a time.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub window_row_groups: u32,
    /// Share of unusable rows above which the run stops with exit code 3.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_quarantined_share: f64,
    /// Images with more pixels are unusable, and their rows quarantined.
    #[schemars(range(min = 1, max = 10_000_000_000_u64))]
    pub max_pixels: u64,
    /// Smallest and largest share of an image's area that a random crop keeps.
    #[schemars(extend("items" = {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0}))]
    pub crop_scale: [f64; 2],
    /// Mirror half of the images.
    pub flip: bool,
    /// RandAugment as BLIP has it, after the crop: two of ten operations (contrast, equalization, shears,
    /// shifts, turns), each done half of the time, at magnitude 5.
    #[serde(skip_serializing_if = "is_off")]
    #[schemars(extend("x-stored-if-set" = true))]
    pub rand_augment: bool,
}

/// One of several sources.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["files"]))]
pub struct SourceSettings {
    /// Parquet files of the source: paths or URLs, `*` matches within the last path segment.
    pub files: Vec<String>,
    /// Samples drawn from the source, relative to the weights of the others; without one, as
    /// `data.unweighted` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1e12), extend("exclusiveMinimum" = 0.0))]
    pub weight: Option<f64>,
}

/// Whether a switch is off, and so neither stored nor hashed.
fn is_off(switch: &bool) -> bool {
    !*switch
}

impl DataSettings {
    /// The corpus as its sources: one without a name, or those of `sources`, by name.
    pub fn corpus(&self) -> Vec<CorpusSource> {
        if self.sources.is_empty() {
            return vec![CorpusSource { files: self.train.clone(), ..CorpusSource::default() }];
        }
        let named = |(name, source): (&String, &SourceSettings)| CorpusSource {
            name: name.clone(),
            files: source.files.clone(),
            weight: source.weight,
            unweighted: self.unweighted,
        };
        self.sources.iter().map(named).collect()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(WorkerError::Configuration(reason));
        match (self.train.is_empty(), self.sources.is_empty()) {
            (true, true) => return refuse("data.train is empty: name the corpus' Parquet files".into()),
            (false, false) => {
                return refuse("data.train and data.sources both name the corpus: use one of them".into());
            }
            _ => {}
        }
        for (name, source) in &self.sources {
            if source.files.is_empty() {
                return refuse(format!(
                    "data.sources.{name}.files is empty: name the source's Parquet files"
                ));
            }
            if source.weight.is_some_and(|weight| !(weight.is_finite() && weight > 0.0)) {
                return refuse(format!(
                    "data.sources.{name}.weight must be a positive number; leave a source out to draw nothing from it"
                ));
            }
        }
        Ok(())
    }
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            sources: BTreeMap::new(),
            unweighted: Unweighted::Rows,
            columns: ColumnNames::default(),
            window_row_groups: 4,
            max_quarantined_share: 0.01,
            max_pixels: 200_000_000,
            crop_scale: [0.5, 1.0],
            flip: true,
            rand_augment: false,
        }
    }
}
