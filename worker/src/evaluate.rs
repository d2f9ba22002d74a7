//! Evaluation of a run's checkpoints on held-out images: the models of a checkpoint are opened here and
//! measured by [`blip2_evaluation`].

use std::path::Path;

use blip2_dataset::corpus::samples::Sample;
use blip2_evaluation::image_transform::ImageTransform;
use blip2_evaluation::retrieval::{self, Retrieval};
use blip2_evaluation::sample_encoder::SampleEncoder;
use blip2_model::blip2::asking::PLACE;
use blip2_model::vision::ImageEncoder;
use burn::tensor::Device;

use crate::answering::Answerer;
use crate::checkpoint::NamedState;
use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenSizes;
use crate::image_processor::image_processor;
use crate::language::Language;
use crate::open::{device, for_images_of, own_image_encoder, placement, qformer_vocabulary};
use crate::settings::model::ModelSettings;
use crate::settings::train::StepSettings;
use crate::state::TrainState;
use crate::task::scores::EvaluationSet;
pub use crate::task::scores::{AnswerScores, Measure, SampleAnswer, Scores};

/// The models of a run's checkpoints, without autodiff.
pub struct Evaluator {
    config: WorkerConfig,
    device: Device,
    /// As its folder has it.
    encoder: ImageEncoder,
}

impl Evaluator {
    /// Loads the frozen encoder that `config` names.
    pub fn open(config: &WorkerConfig) -> Result<Self> {
        let device = device(&config.train.device, config.train.tf32)?;
        let encoder = own_image_encoder(&config.model, placement(&config.model, &device)?)?;
        Ok(Self { config: config.clone(), device, encoder })
    }

    /// The way to features of images of the size that these models have.
    fn images(&self, model: &ModelSettings) -> Result<SampleEncoder> {
        let encoder = for_images_of(self.encoder.clone(), "image_size", model.image_size)?;
        let processor = image_processor(model, encoder.image_size())?;
        Ok(SampleEncoder::new(encoder, ImageTransform::new(&processor), self.device.clone()))
    }

    /// What `stage`'s task measures of a state of it.
    pub fn scores(&self, stage: &NumberedStage, state: &NamedState, samples: &[Sample]) -> Result<Scores> {
        let (train, model) = (&self.config.train, &*stage.settings.model(&self.config.model));
        let images = &self.images(model)?;
        let language = self.language(stage)?;
        let state = self.restored(stage, state, language.as_ref())?;
        let language = language.as_ref();
        state.task.scores(&EvaluationSet { train, model, images, samples, language })
    }

    /// A state of a stage that answers questions, as what answers them, `batch` at a time.
    ///
    /// # Errors
    /// A stage that answers none, models that do not open, a state of other models.
    pub fn answerer(self, stage: &NumberedStage, state: &NamedState, batch: usize) -> Result<Answerer> {
        let Some(language) = self.language(stage)?.filter(|_| stage.settings.task.asks()) else {
            let reason = format!("stage `{}` answers no questions", stage.name());
            return Err(WorkerError::Configuration(reason));
        };
        let task = self.restored(stage, state, Some(&language))?.task;
        let (before, after) = language.answers(stage.number)?.around();
        let prompt = format!("{before}{PLACE}{after}");
        let model = stage.settings.model(&self.config.model).into_owned();
        let images = self.images(&model)?;
        Ok(Answerer { model, images, language, task, prompt, batch: batch.max(1) })
    }

    /// The language model of a stage that has one.
    fn language(&self, stage: &NumberedStage) -> Result<Option<Language>> {
        let WorkerConfig { train, model, .. } = &self.config;
        let texts = stage.settings.task.trained().language_texts(stage.number, stage.name());
        let place = placement(model, &self.device)?;
        texts.map(|texts| Language::open(train, model, &[texts], &place)).transpose()
    }

    fn restored(
        &self,
        stage: &NumberedStage,
        state: &NamedState,
        language: Option<&Language>,
    ) -> Result<TrainState> {
        let sizes = FrozenSizes {
            image_width: self.encoder.width(),
            vocab: qformer_vocabulary(&self.config.model)?.0,
            language_width: language.map_or(0, |language| language.model.width()),
        };
        TrainState::restore(stage.clone(), &self.config, sizes, state, &self.device)
    }
}

/// Retrieval by a frozen CLIP model on the device that `train.device` names: the yardstick.
pub fn clip_retrieval(folder: &Path, train: &StepSettings, samples: &[Sample]) -> Result<Retrieval> {
    Ok(retrieval::by_clip(folder, &device(&train.device, train.tf32)?, samples)?)
}
