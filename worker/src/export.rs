//! Trained checkpoints as Hugging Face folders.

use std::path::Path;

use blip2_model::blip2::{Blip2, PromptTokens};
use blip2_model::export::export_blip2;
use blip2_model::language_model::LanguageModel;
use blip2_model::vision::ImageEncoder;

use crate::checkpoint::NamedState;
use crate::config::WorkerConfig;
use crate::convert::{device, qformer_text};
use crate::error::{Result, WorkerError};
use crate::state::{FrozenSizes, StageModel, TrainState};

/// Writes a stage-2 state with its frozen parts to the new folder `out`, as `transformers`'
/// `Blip2ForConditionalGeneration`.
///
/// # Errors
/// A stage-1 state, an image encoder in CLIP's layout, or a folder that exists.
pub fn hugging_face(config: &WorkerConfig, state: &NamedState, out: &Path) -> Result<()> {
    if state.stage() != 2 {
        return Err(WorkerError::checkpoint(
            "stage 1",
            "a Hugging Face folder needs a stage-2 checkpoint: choose one of a later step",
        ));
    }
    let device = device(&config.train.device)?;
    let language_model = config.model.language_model.as_ref();
    let encoder = ImageEncoder::open(config.model.image_encoder.as_ref(), &device)?;
    let language = LanguageModel::open(language_model, &device)?;
    let (text, _) = qformer_text(&config.model, config.stage1.text_length)?;
    let sizes = FrozenSizes {
        image_width: encoder.width(),
        vocab: text.vocab_size(),
        language_width: language.width(),
    };
    let state = TrainState::restore(config, sizes, state, &device)?;
    let StageModel::Stage2(stage2) = state.model else {
        return Err(WorkerError::Protocol("a stage-2 state holds another model".into()));
    };
    let qformer = config.model.qformer_config(sizes.image_width, sizes.vocab);
    let tokens = PromptTokens::choose(language_model, language.special_tokens())?;
    let mut model = Blip2::from_parts(encoder, *stage2, language, qformer, tokens)?;
    Ok(export_blip2(out, &mut model, language_model)?)
}
