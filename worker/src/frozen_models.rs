//! The frozen models of a run, and what else stays the same over its steps.

use std::collections::BTreeMap;

use blip2_model::vision::ImageEncoder;
use blip2_model_files::tokenizer::DECODER_START;
use blip2_proto::drill::{Drill, DrillPhase};
use blip2_random::KeyedRng;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::dropout::Dropout;
use burn::tensor::Device;

use crate::error::{Result, WorkerError};
use crate::frozen_images::{FrozenImages, StageImages};
use crate::language::{Language, LanguageTexts};
use crate::open::{compute, own_image_encoder, qformer_tokenizer, qformer_vocabulary};
use crate::settings::model::ModelSettings;
use crate::settings::train::StepSettings;

/// What a panic says when an allocation finds no room on a card, and after a kernel's fault.
const CARD_IS_FULL: &str =
    "An IO error happened\nCaused by:\n  out of device memory allocating 1073741824 bytes\n";
const CARD_FAULTS: &str = "The device is poisoned\nCaused by:\n  cuEventSynchronize failed with status 700\n";

/// Sizes that come from the frozen models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrozenSizes {
    /// Width of the image encoder's features.
    pub image_width: usize,
    /// Rows of the Q-Former's word table.
    pub vocab: usize,
    /// Width of the language model's embeddings; 0 without one.
    pub language_width: usize,
}

/// The frozen models of a run, and what else stays the same over its steps.
pub struct FrozenModels {
    /// What all steps share.
    pub train: StepSettings,
    /// The models' settings.
    pub model: ModelSettings,
    /// Sizes that come from the models.
    pub sizes: FrozenSizes,
    /// Device without autodiff.
    pub device: Device,
    /// The image encoder for images of the run's size.
    images: FrozenImages,
    /// The same for the images of stages that have others, by their numbers.
    of_stages: BTreeMap<u32, FrozenImages>,
    /// The language model; present when a stage is trained through one.
    pub language: Option<Language>,
    /// Id of `[DEC]`.
    pub decoder_start: i32,
    /// Where a rehearsal of faults makes a step wait.
    pub(crate) drill: Drill,
    /// Whether the device is waited for after each part of a step, so that
    /// [`StepTimes`](crate::step::StepTimes) are true and the step slower.
    pub measured: bool,
}

impl FrozenModels {
    /// Loads the models that `model` names to a place; `texts` says which stages are trained through a
    /// language model, `images` which have images of their own size.
    pub(crate) fn load_to(
        train: &StepSettings,
        model: &ModelSettings,
        texts: &[LanguageTexts<'_>],
        images: &[StageImages<'_>],
        place: &Placement,
    ) -> Result<Self> {
        let device = place.device.clone();
        let (compute, frozen) = (compute(train, &device)?, place.matrices);
        tracing::info!(?compute, ?frozen, "numbers of the trained parts' products and of the frozen models");
        let encoder = own_image_encoder(model, place)?;
        let of_stages = images.iter().map(|StageImages { stage, name, size }| {
            let key = format!("stages.{name}.image_size");
            let model = ModelSettings { image_size: *size, ..model.clone() };
            let images = FrozenImages::resized(encoder.clone(), &model, &key, device.clone())?;
            Ok((*stage, images))
        });
        let of_stages = of_stages.collect::<Result<_>>()?;
        let images = FrozenImages::resized(encoder, model, "model.image_size", device.clone())?;
        if let Some(id) = qformer_tokenizer(model)?.added {
            let from = &model.qformer_tokenizer;
            tracing::info!(
                from,
                id,
                "the tokenizer has no {DECODER_START}: it is the token behind the last, as in LAVIS"
            );
        }
        let (vocab, decoder_start) = qformer_vocabulary(model)?;
        let language = match texts {
            [] => None,
            texts => Some(Language::open(train, model, texts, place)?),
        };
        let language_width = language.as_ref().map_or(0, |language| language.model.width());
        let sizes = FrozenSizes { image_width: images.encoder.width(), vocab, language_width };
        Ok(Self {
            train: train.clone(),
            model: model.clone(),
            sizes,
            device,
            images,
            of_stages,
            language,
            decoder_start,
            drill: Drill::default(),
            measured: false,
        })
    }

    /// Models that were made and not loaded; a caption starts with the Q-Former's last token.
    pub fn of(
        train: &StepSettings,
        model: &ModelSettings,
        sizes: FrozenSizes,
        device: Device,
        encoder: ImageEncoder,
        language: Option<Language>,
    ) -> Self {
        Self {
            train: train.clone(),
            model: model.clone(),
            sizes,
            images: FrozenImages::of(encoder, device.clone()),
            device,
            of_stages: BTreeMap::new(),
            language,
            decoder_start: sizes.vocab.saturating_sub(1) as i32,
            drill: Drill::default(),
            measured: false,
        }
    }

    /// The language model.
    ///
    /// # Errors
    /// No stage of the run is trained through one.
    pub(crate) fn language(&self) -> Result<&Language> {
        self.language
            .as_ref()
            .ok_or_else(|| WorkerError::Configuration("model.language_model is not loaded".into()))
    }

    /// The image encoder for the images of the stage of this number.
    pub(crate) fn images_of(&self, stage: u32) -> &FrozenImages {
        self.of_stages.get(&stage).unwrap_or(&self.images)
    }

    /// The Q-Former's dropout masks of one slot in the part of a step that `purpose` names.
    pub(crate) fn dropout(&self, purpose: &str, step: u64, slot: u32) -> Dropout {
        self.dropout_of(self.model.qformer.dropout, purpose, step, slot)
    }

    /// Dropout masks of one slot, of a model with this probability.
    pub(crate) fn dropout_of(&self, probability: f64, purpose: &str, step: u64, slot: u32) -> Dropout {
        if probability <= 0.0 {
            return Dropout::off();
        }
        let key = KeyedRng::new(self.train.seed, purpose, &[step, u64::from(slot)]).next_u64();
        Dropout::keyed(probability, key as u32)
    }

    /// Waits here if a rehearsal asks for it.
    pub(crate) fn rehearse(&self, phase: DrillPhase, step: u64) {
        if let Some(wait) = self.drill.reached(phase, step) {
            std::thread::sleep(wait);
        }
    }

    /// Panics as burn does when a card fails, if a rehearsal asks for it.
    pub(crate) fn rehearse_failures(&self, step: u64) {
        for (phase, text) in [(DrillPhase::CardMemory, CARD_IS_FULL), (DrillPhase::CardFault, CARD_FAULTS)] {
            if let Some(wait) = self.drill.reached(phase, step) {
                std::thread::sleep(wait);
                panic!("{text}");
            }
        }
    }
}
