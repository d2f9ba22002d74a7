//! Trained checkpoints in the published layouts.

use std::path::Path;

pub use blip2_model::blip2::export::{ExportOptions, Precision};
use blip2_model::blip2::export::{Retriever, export_blip2, export_lavis, export_retrieval};
use blip2_model::blip2::{Blip2, PromptTokens};
use blip2_model::files::image_processor::ImageProcessor;
use blip2_model::language::LanguageModel;
use blip2_model::objectives::contrast::ContrastModel;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::qformer::QFormerConfig;
use blip2_model::vision::ImageEncoder;
use burn::tensor::Device;

use crate::checkpoint::NamedState;
use crate::config::WorkerConfig;
use crate::error::{Result, WorkerError};
use crate::image_processor::image_processor;
use crate::open::{image_encoder, of_language_model, qformer_text};
use crate::state::{FrozenSizes, StageModel, TrainState};

/// A published layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A folder of `transformers`' `Blip2ForConditionalGeneration`, from a stage-2 state.
    HuggingFace,
    /// A folder of `transformers`' `Blip2ForImageTextRetrieval`, from a stage-1 state.
    Retrieval,
    /// LAVIS's names in a file, from a state of either stage: what the stage trains.
    Lavis,
}

/// Writes a state in a published layout to the new folder or file `out`; the frozen parts are those that `config`
/// names.
///
/// # Errors
/// A state of the other stage, an image encoder in CLIP's layout, or an `out` that exists.
pub fn export(
    config: &WorkerConfig,
    state: &NamedState,
    layout: Layout,
    options: &ExportOptions,
    out: &Path,
) -> Result<()> {
    // Values are copied and nothing is computed: no GPU is needed, whatever the run is trained on.
    let device = Device::flex();
    let expected = match layout {
        Layout::HuggingFace => 2,
        Layout::Retrieval => 1,
        Layout::Lavis => state.stage(),
    };
    if state.stage() != expected {
        let reason = format!("this layout needs a stage-{expected} checkpoint: name one of that stage");
        return Err(WorkerError::checkpoint(format!("stage {}", state.stage()), reason));
    }
    let encoder = image_encoder(&config.model, &device)?;
    let (text, _) = qformer_text(&config.model, config.stage1.text_length)?;
    let export = Export { config, encoder, vocab: text.vocab_size(), options, device };
    match (layout, state.stage()) {
        (Layout::Lavis, 1) => Ok(export_lavis(out, &mut export.stage1(state)?, None, options.precision)?),
        (Layout::Lavis, _) => {
            let language_model = export.language_model()?;
            let mut stage2 = export.stage2(state, language_model.width())?;
            Ok(export_lavis(out, &mut stage2, Some(language_model.prefix()), options.precision)?)
        }
        (_, 1) => export.retrieval(state, out),
        _ => export.hugging_face(state, out),
    }
}

struct Export<'a> {
    config: &'a WorkerConfig,
    encoder: ImageEncoder,
    /// Rows of the Q-Former's word table.
    vocab: usize,
    options: &'a ExportOptions,
    device: Device,
}

impl Export<'_> {
    fn language_model(&self) -> Result<LanguageModel> {
        let settings = &self.config.model;
        LanguageModel::open(settings.language_model.as_ref(), &self.device)
            .map_err(|error| of_language_model(settings, error))
    }

    fn sizes(&self, language_width: usize) -> FrozenSizes {
        FrozenSizes { image_width: self.encoder.width(), vocab: self.vocab, language_width }
    }

    fn processor(&self) -> Result<ImageProcessor> {
        image_processor(&self.config.model, self.encoder.image_size())
    }

    fn qformer(&self) -> QFormerConfig {
        self.config.model.qformer_config(self.encoder.width(), self.vocab)
    }

    fn stage1(&self, state: &NamedState) -> Result<ContrastModel> {
        match TrainState::restore(self.config, self.sizes(0), state, &self.device)?.model {
            StageModel::Stage1(model) => Ok(*model),
            StageModel::Stage2(_) => Err(WorkerError::Protocol("a stage-1 state holds another model".into())),
        }
    }

    fn stage2(&self, state: &NamedState, language_width: usize) -> Result<GenerateModel> {
        match TrainState::restore(self.config, self.sizes(language_width), state, &self.device)?.model {
            StageModel::Stage2(model) => Ok(*model),
            StageModel::Stage1(_) => Err(WorkerError::Protocol("a stage-2 state holds another model".into())),
        }
    }

    fn retrieval(mut self, state: &NamedState, out: &Path) -> Result<()> {
        let mut stage1 = self.stage1(state)?;
        let qformer = self.qformer();
        let tokenizer = Path::new(&self.config.model.qformer_tokenizer);
        let processor = self.processor()?;
        let model = Retriever {
            encoder: &mut self.encoder,
            contrast: &mut stage1,
            qformer: &qformer,
            processor: &processor,
        };
        Ok(export_retrieval(out, model, tokenizer, self.options)?)
    }

    fn hugging_face(self, state: &NamedState, out: &Path) -> Result<()> {
        let tokenizer = Path::new(&self.config.model.language_model);
        let mut language_model = self.language_model()?;
        let stage2 = self.stage2(state, language_model.width())?;
        let qformer = self.qformer();
        let tokens = PromptTokens::choose_or_add(tokenizer, language_model.special_tokens())?;
        language_model.grow_vocabulary(tokens.image as usize + 1);
        let processor = self.processor()?;
        let mut model = Blip2::from_parts(self.encoder, stage2, language_model, qformer, tokens)?
            .with_processor(processor);
        Ok(export_blip2(out, &mut model, tokenizer, self.options)?)
    }
}
