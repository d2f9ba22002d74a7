//! Batches of the own slots, as a stage's settings ask for them.

use std::ops::Range;
use std::sync::Arc;

use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::loader::{Loader, LoaderSpec};
use blip2_dataset::plan::{Plan, PlanKey};
use blip2_evaluation::image_transform::resampling;
use blip2_images::transform::TrainTransform;

use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::error::Result;
use crate::frozen_models::FrozenModels;

/// Which batches a loader reads.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRange {
    /// Of this stage.
    pub stage: NumberedStage,
    /// First step within the stage.
    pub first_step: u64,
    /// The own slots.
    pub slots: Range<u32>,
}

/// Starts reading the batches of `range`, to the end of its stage.
pub fn start_loader(
    config: &WorkerConfig,
    frozen: &FrozenModels,
    manifest: Arc<Manifest>,
    runtime: tokio::runtime::Handle,
    range: BatchRange,
) -> Result<Loader> {
    let BatchRange { stage, first_step, slots } = range;
    let images = frozen.images_of(stage.number);
    let key = PlanKey { seed: config.train.seed, stage: stage.number };
    let plan = Plan::new(&manifest, key, config.train.slots, config.data.window_row_groups)?;
    let spec = LoaderSpec {
        manifest,
        plan: Arc::new(plan),
        columns: stage.settings.task.columns(&config.data.columns),
        slots,
        batch_per_slot: stage.settings.batch / config.train.slots,
        slots_total: config.train.slots,
        first_step,
        last_step: stage.settings.steps,
        seed: config.train.seed,
        stage: stage.number,
        image: TrainTransform {
            resampling: resampling(&images.processor),
            rand_augment: config.data.rand_augment,
            ..TrainTransform::new(images.encoder.image_size(), config.data.crop_scale, config.data.flip)
        },
        text: stage.settings.task.trained().encoder(frozen, stage.number)?,
        max_pixels: config.data.max_pixels,
        settings: config.loader.clone(),
    };
    Ok(Loader::start(runtime, spec)?)
}
