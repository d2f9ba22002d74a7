//! Evaluation of a run's checkpoints on held-out images: the models of a checkpoint are opened here and measured by
//! [`blip2_evaluation`].

use std::path::Path;

use blip2_dataset::corpus::samples::Sample;
use blip2_evaluation::caption_loss::{self, CaptionLosses, CaptionModel, SummedLoss};
use blip2_evaluation::captions::readable;
use blip2_evaluation::image_transform::ImageTransform;
use blip2_evaluation::retrieval::{self, Retrieval};
use blip2_evaluation::sample_encoder::SampleEncoder;
use burn::tensor::{Device, Tensor};

use crate::checkpoint::NamedState;
use crate::config::{StepSettings, WorkerConfig};
use crate::error::{Result, WorkerError};
use crate::image_processor::image_processor;
use crate::language::Language;
use crate::open::{device, image_encoder, placement, qformer_text};
use crate::state::{FrozenSizes, StageModel, TrainState};

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

    fn sizes(&self, language_width: usize) -> Result<FrozenSizes> {
        let (text, _) = qformer_text(&self.config.model, self.config.stage1.text_length)?;
        let image_width = self.images.encoder().width();
        Ok(FrozenSizes { image_width, vocab: text.vocab_size(), language_width })
    }

    /// Retrieval by the contrastive similarity of a stage-1 state.
    pub fn retrieval(&self, state: &NamedState, samples: &[Sample]) -> Result<Retrieval> {
        let state = TrainState::restore(&self.config, self.sizes(0)?, state, &self.device)?;
        let StageModel::Stage1(model) = &state.model else {
            return Err(WorkerError::checkpoint("stage 2", "retrieval needs the end of stage 1"));
        };
        let (encoder, _) = qformer_text(&self.config.model, self.config.stage1.text_length)?;
        Ok(retrieval::by_contrast(&self.images, model, &encoder, samples)?)
    }

    /// Losses of a stage-2 state through the frozen language model.
    pub fn caption_losses(&self, state: &NamedState, samples: &[Sample]) -> Result<CaptionLosses> {
        let place = placement(&self.config.model, &self.device)?;
        let language = Language::open(&self.config, &place)?;
        let sizes = self.sizes(language.model.width())?;
        let state = TrainState::restore(&self.config, sizes, state, &self.device)?;
        let StageModel::Stage2(stage2) = &state.model else {
            return Err(WorkerError::checkpoint("stage 1", "caption losses need a stage-2 checkpoint"));
        };
        let samples = &readable(samples, &language.encoder());
        let language = LanguageOn { language: &language, device: &self.device };
        caption_loss::caption_losses(&self.images, stage2, &language, samples, self.config.train.seed)
    }
}

/// Retrieval by a frozen CLIP model on the device that `train.device` names: the yardstick.
pub fn clip_retrieval(folder: &Path, train: &StepSettings, samples: &[Sample]) -> Result<Retrieval> {
    Ok(retrieval::by_clip(folder, &device(&train.device, train.tf32)?, samples)?)
}

/// A run's language model where it computes.
struct LanguageOn<'a> {
    language: &'a Language,
    device: &'a Device,
}

impl CaptionModel for LanguageOn<'_> {
    type Error = WorkerError;

    fn caption_loss(&self, soft_prompts: Option<Tensor<3>>, captions: &[String]) -> Result<SummedLoss> {
        let batch = self.language.held_out_texts(captions)?;
        let loss = self.language.model.caption_loss(soft_prompts, &batch.texts(), self.device)?;
        Ok(SummedLoss { sum: loss.value.read()?, tokens: batch.tokens() })
    }
}
