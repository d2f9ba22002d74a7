//! Trained checkpoints in the published layouts.

use std::path::Path;

use blip2_model::language::LanguageModel;
use burn::tensor::Device;

use crate::checkpoint::NamedState;
use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenSizes;
use crate::open::{image_encoder, of_language_model, qformer_vocabulary};
use crate::state::TrainState;
use crate::task::export::ExportTarget;
pub use crate::task::export::{ExportOptions, Layout, Precision};

/// Writes a state of `stage` in a published layout to the new folder or file `out`; the frozen models are
/// those that `config` names.
///
/// # Errors
/// A layout that the stage's task has not, an image encoder in CLIP's layout, or an `out` that exists.
pub fn export(
    config: &WorkerConfig,
    stage: &NumberedStage,
    state: &NamedState,
    layout: Layout,
    options: &ExportOptions,
    out: &Path,
) -> Result<()> {
    let task = &stage.settings.task;
    if !task.layouts().contains(&layout) {
        let reason = format!(
            "the task {} has not this layout, but {:?}: name a checkpoint of another stage",
            task.name(),
            task.layouts()
        );
        return Err(WorkerError::checkpoint(format!("stage `{}`", stage.name()), reason));
    }
    // Values are copied and nothing is computed: no GPU is needed, whatever the run is trained on.
    let device = Device::flex();
    let model = &*stage.settings.model(&config.model);
    let encoder = image_encoder(model, &device)?;
    let vocab = qformer_vocabulary(model)?.0;
    let language_width = match task.needs().language_model {
        true => LanguageModel::width_of(model.language_model.as_ref())
            .map_err(|error| of_language_model(model, error))?,
        false => 0,
    };
    let sizes = FrozenSizes { image_width: encoder.width(), vocab, language_width };
    let mut state = TrainState::restore(stage.clone(), config, sizes, state, &device)?;
    state.task.export(layout, ExportTarget { model, encoder, vocab, options, device, out })
}
