//! Evaluation of a run's checkpoints on held-out images: the models of a checkpoint are opened here and
//! measured by [`blip2_evaluation`].

use std::path::Path;

use blip2_dataset::corpus::samples::Sample;
use blip2_evaluation::image_transform::ImageTransform;
use blip2_evaluation::retrieval::{self, Retrieval};
use blip2_evaluation::sample_encoder::SampleEncoder;
use burn::tensor::Device;

use crate::checkpoint::NamedState;
use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::error::Result;
use crate::frozen_models::FrozenSizes;
use crate::image_processor::image_processor;
use crate::language::Language;
use crate::open::{device, image_encoder, placement, qformer_vocabulary};
use crate::settings::train::StepSettings;
use crate::state::TrainState;
use crate::task::scores::EvaluationSet;
pub use crate::task::scores::{AnswerScores, Measure, Scores, WrittenAnswer};

/// The models of a run's checkpoints, without autodiff.
pub struct Evaluator {
    config: WorkerConfig,
    device: Device,
    images: SampleEncoder,
}

impl Evaluator {
    /// Loads the frozen encoder that `config` names.
    pub fn open(config: &WorkerConfig) -> Result<Self> {
        let device = device(&config.train.device, config.train.tf32)?;
        let encoder = image_encoder(&config.model, placement(&config.model, &device)?)?;
        let processor = image_processor(&config.model, encoder.image_size())?;
        let images = SampleEncoder::new(encoder, ImageTransform::new(&processor), device.clone());
        Ok(Self { config: config.clone(), device, images })
    }

    /// What `stage`'s task measures of a state of it.
    pub fn scores(&self, stage: &NumberedStage, state: &NamedState, samples: &[Sample]) -> Result<Scores> {
        let WorkerConfig { train, model, .. } = &self.config;
        let language = match stage.settings.task.trained().language_texts(stage.number, stage.name()) {
            Some(texts) => Some(Language::open(train, model, &[texts], &placement(model, &self.device)?)?),
            None => None,
        };
        let sizes = FrozenSizes {
            image_width: self.images.encoder().width(),
            vocab: qformer_vocabulary(model)?.0,
            language_width: language.as_ref().map_or(0, |language| language.model.width()),
        };
        let state = TrainState::restore(stage.clone(), &self.config, sizes, state, &self.device)?;
        let language = language.as_ref();
        state.task.scores(&EvaluationSet { train, model, images: &self.images, samples, language })
    }
}

/// Retrieval by a frozen CLIP model on the device that `train.device` names: the yardstick.
pub fn clip_retrieval(folder: &Path, train: &StepSettings, samples: &[Sample]) -> Result<Retrieval> {
    Ok(retrieval::by_clip(folder, &device(&train.device, train.tf32)?, samples)?)
}
