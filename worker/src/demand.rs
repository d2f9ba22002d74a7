//! What a run's stages ask of their workers, from the sizes of its models: read off their folders, or known
//! by name. No weights are read, and no model is made.

mod models;
mod workload;

use blip2_cost::workload::Workload;

use crate::config::WorkerConfig;
use crate::error::Result;

/// What the stages that have steps ask, in their order; how often checkpoints are written is not known here.
///
/// # Errors
/// [`WorkerError::Configuration`](crate::WorkerError::Configuration): a model that is neither here nor known
/// by its name, or sizes that none can have.
pub fn demands(config: &WorkerConfig) -> Result<Vec<Workload>> {
    let models = models::of(config)?;
    config.trained_stages().map(|stage| workload::of(config, &stage, &models)).collect()
}
