//! The sizes of a run's models: of their folders, or, where these are not here, of published models by name.

use std::path::Path;

use blip2_model::by_name;
use blip2_model::language::{LanguageModel, LanguageSizes};
use blip2_model::vision::{EncoderSizes, ImageEncoder};

use crate::config::WorkerConfig;
use crate::error::{Result, WorkerError};
use crate::open::qformer_vocabulary;

/// Sizes of a run's models.
pub(super) struct Models {
    /// For images of its own size.
    pub(super) encoder: EncoderSizes,
    /// Where a stage is trained through it.
    pub(super) language: Option<Box<dyn LanguageSizes>>,
    /// Rows of the Q-Former's word table.
    pub(super) vocabulary: usize,
}

/// The sizes of the models that the trained stages need.
///
/// # Errors
/// A model that is neither here nor known by its name, or a folder that cannot be read.
pub(super) fn of(config: &WorkerConfig) -> Result<Models> {
    let model = &config.model;
    let encoder = sizes("model.image_encoder", &model.image_encoder, by_name::IMAGE_ENCODERS, |path| {
        path.map_or_else(
            |name| Ok(by_name::image_encoder(name)),
            |path| ImageEncoder::sizes_of(path).map(Some).map_err(|error| error.to_string()),
        )
    })?;
    let needs_language = config.trained_stages().any(|stage| stage.settings.task.needs().language_model);
    let language = match needs_language {
        false => None,
        true => {
            Some(sizes("model.language_model", &model.language_model, by_name::LANGUAGE_MODELS, |path| {
                path.map_or_else(
                    |name| Ok(by_name::language_model(name)),
                    |path| LanguageModel::sizes_of(path).map(Some).map_err(|error| error.to_string()),
                )
            })?)
        }
    };
    // Its rows are a few hundredths of what is trained: where no tokenizer says how many, they are BERT's.
    let here = Path::new(&model.qformer_tokenizer).is_dir();
    let vocabulary = match here {
        true => qformer_vocabulary(model)?.0,
        false => by_name::BERT_VOCABULARY,
    };
    Ok(Models { encoder, language, vocabulary })
}

/// What a look at a place, which is here, or a name, which is not, gives.
fn sizes<T>(
    key: &str,
    place: &str,
    known: &[&str],
    look: impl FnOnce(std::result::Result<&Path, &str>) -> std::result::Result<Option<T>, String>,
) -> Result<T> {
    let path = Path::new(place);
    let found = match path.is_dir() || path.is_file() {
        true => look(Ok(path)),
        false => look(Err(place)),
    };
    let found = found.map_err(|error| WorkerError::Configuration(format!("{key} = \"{place}\": {error}")))?;
    found.ok_or_else(|| {
        let known = known.join(", ");
        WorkerError::Configuration(format!(
            "{key} = \"{place}\": neither here nor named after a model whose sizes are known ({known}); give a folder with \
             its config.json, no weights are read"
        ))
    })
}
