//! Whether a published folder has the sizes that a configuration names, which the shapes of tensors do not
//! tell.

use std::path::Path;

use blip2_model::blip2::PublishedQFormer;

use crate::error::{Result, WorkerError};
use crate::settings::model::ModelSettings;

/// Requires that a folder of `transformers`, if `from` is one, has the sizes of the configuration.
pub(crate) fn compare_folder(model: &ModelSettings, from: &Path) -> Result<()> {
    match PublishedQFormer::of_folder(from)? {
        Some(published) => compare(model, &published),
        None => Ok(()),
    }
}

/// What shapes do not tell.
fn compare(model: &ModelSettings, published: &PublishedQFormer) -> Result<()> {
    let (sizes, theirs) = (&model.qformer, &published.config);
    let fields = [
        ("heads", sizes.heads, theirs.heads),
        ("layers", sizes.layers, theirs.layers),
        ("queries", sizes.queries, theirs.queries),
        ("hidden", sizes.hidden, theirs.hidden),
        ("intermediate", sizes.intermediate, theirs.intermediate),
        ("cross_attention_frequency", sizes.cross_attention_frequency, theirs.cross_attention_frequency),
    ];
    let mut differences: Vec<String> = (fields.iter())
        .filter(|(_, own, theirs)| own != theirs)
        .map(|(name, own, theirs)| format!("model.qformer.{name} = {own}, the weights have {theirs}"))
        .collect();
    if model.ln_vision_eps != published.ln_vision_eps {
        let (own, theirs) = (model.ln_vision_eps, published.ln_vision_eps);
        differences.push(format!("model.ln_vision_eps = {own}, the weights have {theirs}"));
    }
    match differences.is_empty() {
        true => Ok(()),
        false => Err(WorkerError::Configuration(format!(
            "{}: set these as the weights have them: {}",
            published.path.display(),
            differences.join("; ")
        ))),
    }
}
