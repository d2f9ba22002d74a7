//! The published layouts, and what a task's model is written with.

use std::path::Path;

use blip2_model::adapters::Adapters;
use blip2_model::blip2::asking::Asking;
pub use blip2_model::blip2::export::{ExportOptions, Precision};
use blip2_model::blip2::export::{PeftBase, Tokenizers, export_instructblip, export_peft};
use blip2_model::blip2::{Blip2, PromptTokens};
use blip2_model::language::LanguageModel;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::qformer::QFormerConfig;
use blip2_model::vision::ImageEncoder;
use blip2_model_files::image_processor::ImageProcessor;
use blip2_store::secret_url::redacted;
use blip2_tensors::device::placement::Placement;
use burn::tensor::Device;

use crate::error::Result;
use crate::image_processor::image_processor;
use crate::open::of_language_model;
use crate::settings::model::ModelSettings;

/// A published layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A folder of `transformers`' `Blip2ForConditionalGeneration`, from a task that trains through a
    /// language model, or of `InstructBlipForConditionalGeneration`, where its Q-Former reads questions.
    HuggingFace,
    /// A folder of `transformers`' `Blip2ForImageTextRetrieval`, from a task with contrastive heads.
    Retrieval,
    /// LAVIS's names in a file: what a task trains.
    Lavis,
    /// A folder of `peft` with the language model's adapters, from a stage that trains some.
    Peft,
}

/// What ends the texts that a model was trained to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What ends a caption of the family.
    Caption,
    /// The language model's own end token.
    EndToken,
}

/// Where a model is written, and the frozen ones beside it.
pub(crate) struct ExportTarget<'a> {
    pub(crate) model: &'a ModelSettings,
    pub(crate) encoder: ImageEncoder,
    /// Rows of the Q-Former's word table.
    pub(crate) vocab: usize,
    pub(crate) options: &'a ExportOptions,
    pub(crate) device: Device,
    /// A new folder or file.
    pub(crate) out: &'a Path,
}

impl ExportTarget<'_> {
    pub(crate) fn language_model(&self) -> Result<LanguageModel> {
        LanguageModel::open(self.model.language_model.as_ref(), Placement::from(&self.device))
            .map_err(|error| of_language_model(self.model, error))
    }

    /// Writes the adapters of a language model, which read with this dropout in training.
    pub(crate) fn adapters(&self, adapters: &mut Adapters, dropout: f64) -> Result<()> {
        let base = redacted(&self.model.language_model);
        Ok(export_peft(self.out, adapters, PeftBase { model: &base, dropout }, self.options.precision)?)
    }

    pub(crate) fn processor(&self) -> Result<ImageProcessor> {
        image_processor(self.model, self.encoder.image_size())
    }

    /// Writes a model whose Q-Former reads questions as `InstructBlipForConditionalGeneration`.
    pub(crate) fn instructblip(
        self,
        trained: GenerateModel,
        mut language_model: LanguageModel,
        asking: Asking,
        ending: Ending,
    ) -> Result<()> {
        let language: &Path = self.model.language_model.as_ref();
        let (qformer, processor) = (self.qformer(), self.processor()?);
        let special = language_model.special_tokens();
        let mut tokens = PromptTokens::choose_or_add(language, special.clone())?;
        if ending == Ending::EndToken {
            tokens.eos = special.eos;
        }
        language_model.grow_vocabulary(tokens.image as usize + 1);
        let mut whole = Blip2::from_parts(self.encoder, trained, language_model, qformer, tokens)?
            .with_processor(processor)
            .with_asking(asking);
        let tokenizers = Tokenizers { language, qformer: self.model.qformer_tokenizer.as_ref() };
        Ok(export_instructblip(self.out, &mut whole, tokenizers, self.options)?)
    }

    pub(crate) fn qformer(&self) -> QFormerConfig {
        self.model.qformer_config(self.encoder.width(), self.vocab)
    }
}
