//! Batches of the own slots, as a stage's settings ask for them.

use std::ops::Range;
use std::sync::Arc;

use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::image::transform::TrainTransform;
use blip2_dataset::loader::{Loader, LoaderSpec};
use blip2_dataset::plan::{Plan, PlanKey};
use blip2_evaluation::image_transform::resampling;

use crate::error::Result;
use crate::open::qformer_text;
use crate::step::FrozenModels;

/// Which batches a loader reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRange {
    /// 1 or 2.
    pub stage: u32,
    /// First step within the stage.
    pub first_step: u64,
    /// The own slots.
    pub slots: Range<u32>,
}

/// Starts reading the batches of `range`, to the end of its stage.
pub fn start_loader(
    parts: &FrozenModels,
    manifest: Arc<Manifest>,
    runtime: tokio::runtime::Handle,
    range: BatchRange,
) -> Result<Loader> {
    let config = &parts.config;
    let (batch, last_step, text) = match range.stage {
        1 => {
            let (text, _) = qformer_text(&config.model, config.stage1.text_length)?;
            (config.stage1.batch, config.stage1.steps, text)
        }
        _ => (config.stage2.batch, config.stage2.steps, parts.language()?.encoder()),
    };
    let key = PlanKey { seed: config.train.seed, stage: range.stage };
    let plan = Plan::new(&manifest, key, config.train.slots, config.data.window_row_groups)?;
    let size = parts.encoder.image_size();
    let spec = LoaderSpec {
        manifest,
        plan: Arc::new(plan),
        columns: config.data.columns.clone(),
        slots: range.slots,
        batch_per_slot: batch / config.train.slots,
        slots_total: config.train.slots,
        first_step: range.first_step,
        last_step,
        seed: config.train.seed,
        stage: range.stage,
        image: TrainTransform {
            resampling: resampling(&parts.processor),
            ..TrainTransform::new(size, config.data.crop_scale, config.data.flip)
        },
        text,
        max_pixels: config.data.max_pixels,
        settings: config.loader.clone(),
    };
    Ok(Loader::start(runtime, spec)?)
}
