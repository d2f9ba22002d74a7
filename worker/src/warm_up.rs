//! Warming up: what the first pass on a card costs beyond the later ones is spent before others wait for it.

use std::time::Instant;

use blip2_tensors::device::KernelsMade;

use crate::config::WorkerConfig;
use crate::error::Result;
use crate::frozen_models::FrozenModels;
use crate::state::empty_model;

/// Passes one slot of zeros through every model of the run, forward and back, so that the device's kernels
/// are made: all but those of losses over other slots.
pub(crate) fn warm_up(config: &WorkerConfig, frozen: &FrozenModels) -> Result<()> {
    let (started, mut kernels) = (Instant::now(), KernelsMade::from_now_on());
    let device = frozen.device.clone().autodiff();
    for stage in config.trained_stages() {
        let model = empty_model(&stage, config, frozen.sizes, &device)?;
        model.warm_up(frozen, (stage.settings.batch / config.train.slots.max(1)) as usize)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(seconds, kernels = kernels.take(), "warmed up");
    Ok(())
}
