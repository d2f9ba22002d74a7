//! The Q-Former's parts for texts, which weights of the second stage of pre-training lack, from other weights
//! that a stage names.

use std::path::Path;

use blip2_evaluation::fault::Fault as _;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::train::flat::FlatTensor;

use crate::config::stage::NumberedStage;
use crate::error::{Result, WorkerError};

/// Weights that a stage names for the tensors that what it continues with lacks.
#[derive(Debug)]
pub(crate) struct TextHalf {
    key: String,
    path: String,
    source: WeightSource,
}

impl TextHalf {
    /// What the stage names, if it names some.
    ///
    /// # Errors
    /// The key, where there are no weights.
    pub(crate) fn open(stage: &NumberedStage) -> Result<Option<Self>> {
        let Some(path) = stage.settings.task.trained().text_half().filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let key = key_of(stage.name());
        let source = WeightSource::open_published(Path::new(path))
            .map_err(|error| WorkerError::of_model(&key, path, error))?;
        Ok(Some(Self { key, path: path.to_owned(), source }))
    }

    /// The files.
    pub(crate) fn source(&self) -> &WeightSource {
        &self.source
    }

    /// The values of a tensor, if it is there.
    ///
    /// # Errors
    /// The key, where it has another shape.
    pub(crate) fn find(&self, tensor: &FlatTensor) -> Result<Option<Vec<f32>>> {
        if !self.source.contains(&tensor.name) {
            return Ok(None);
        }
        let values = self.source.read(&tensor.name, &tensor.shape);
        values.map(Some).map_err(|error| WorkerError::of_model(&self.key, &self.path, error))
    }

    /// Requires that a tensor is there; no values are read.
    ///
    /// # Errors
    /// The key and the tensor, where it is not, or has another shape.
    pub(crate) fn expect(&self, tensor: &FlatTensor) -> Result<()> {
        let found = self.source.expect(&tensor.name, &tensor.shape);
        found.map_err(|error| WorkerError::of_model(&self.key, &self.path, error))
    }
}

/// The key of a stage's text half.
pub(crate) fn key_of(stage: &str) -> String {
    format!("stages.{stage}.text_half")
}

/// The error of a stage that names none and needs one: what it continues with, `origin`, lacks `missing` of
/// its tensors, `first` first.
pub(crate) fn not_named(
    stage: &NumberedStage,
    origin: &str,
    missing: usize,
    tensors: usize,
    first: &str,
) -> WorkerError {
    WorkerError::Configuration(format!(
        "{origin} lacks {missing} of the {tensors} tensors that stage `{}` ({}) continues with, `{first}` first: weights of the \
         second stage of pre-training have no parts for texts; name those of the first in {}",
        stage.name(),
        stage.settings.task.name(),
        key_of(stage.name()),
    ))
}
