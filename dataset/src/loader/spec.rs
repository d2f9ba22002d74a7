//! What a loader loads.

use std::ops::Range;
use std::sync::Arc;

use blip2_images::transform::TrainTransform;

use super::settings::LoaderSettings;
use crate::corpus::columns::ColumnNames;
use crate::corpus::manifest::Manifest;
use crate::error::{DatasetError, Result};
use crate::plan::{Plan, PlanKey};
use crate::text::TextEncoder;

/// What a loader loads.
#[derive(Debug, Clone)]
pub struct LoaderSpec {
    /// The corpus.
    pub manifest: Arc<Manifest>,
    /// The order of its rows; made for `seed`, `stage` and `slots_total`.
    pub plan: Arc<Plan>,
    /// Column names.
    pub columns: ColumnNames,
    /// The slots to load.
    pub slots: Range<u32>,
    /// Samples of a slot in a step.
    pub batch_per_slot: u32,
    /// Slots of the whole run.
    pub slots_total: u32,
    /// First step to load.
    pub first_step: u64,
    /// Step after the last one to load.
    pub last_step: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Training stage.
    pub stage: u32,
    /// Crop, mirroring, normalisation.
    pub image: TrainTransform,
    /// Tokenizer and text length.
    pub text: Arc<TextEncoder>,
    /// Images with more pixels are not used.
    pub max_pixels: u64,
    /// Memory and threads.
    pub settings: LoaderSettings,
}

impl LoaderSpec {
    /// Refuses a specification that contradicts itself.
    pub(super) fn check(&self) -> Result<()> {
        let scale = self.image.crop_scale;
        let key = PlanKey { seed: self.seed, stage: self.stage };
        let rules = [
            (
                self.slots.start < self.slots.end && self.slots.end <= self.slots_total,
                "the slots to load are not slots of the run",
            ),
            (
                self.plan.slots() == self.slots_total && self.plan.key() == key,
                "the plan was made for other slots, seed or stage",
            ),
            (self.plan.rows() == self.manifest.rows(), "the plan was made for another manifest"),
            (self.first_step <= self.last_step, "the first step is behind the last"),
            (self.batch_per_slot > 0, "a slot's batch must have at least one sample"),
            (self.image.size > 0, "the picture size must be at least 1"),
            (
                0.0 < scale[0] && scale[0] <= scale[1] && scale[1] <= 1.0,
                "data.crop_scale must be two shares, 0 < low <= high <= 1",
            ),
            (self.settings.decode_threads > 0, "loader.decode_threads must be at least 1"),
            (self.settings.read_concurrency > 0, "loader.read_concurrency must be at least 1"),
            (self.settings.read_attempts > 0, "loader.read_attempts must be at least 1"),
            (self.settings.hedged_percent <= 100, "loader.hedged_percent must be at most 100"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, complaint)) => Err(DatasetError::Setting(complaint.to_owned())),
            None => Ok(()),
        }
    }
}
