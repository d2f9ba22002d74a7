//! The frozen language models of the generate task, behind one interface.

mod decoder;
pub mod generation;
pub mod llama;
mod loss;
pub mod opt;
mod prefix;
#[cfg(test)]
pub(crate) mod published;
pub mod t5;
mod tokens;

pub use loss::{Padded, Texts};
pub use prefix::split_caption;
pub use tokens::SpecialTokens;

pub(crate) use decoder::CausalModel;

use std::path::Path;

use burn::tensor::{Int, Tensor};

use crate::device::placement::Placement;
use crate::error::ModelError;
use crate::files::config::FolderConfig;
use crate::files::weights::Fit;
use crate::language::generation::{GenerateOptions, Stop, generate_until};
use crate::language::llama::{LLAMA_PREFIX, Llama, LlamaConfig};
use crate::language::opt::{OPT_PREFIX, Opt, OptConfig};
use crate::language::t5::{T5, T5_PREFIX, T5Config, T5Decoder};
use crate::nn::tensors::{NamedTensors, TensorVisitor};
use decoder::CausalDecoder;

/// The longest inputs that T5 was trained on; it has no table of positions that would end.
const T5_POSITIONS: usize = 512;

fn unknown(config: &FolderConfig, model_type: &str) -> ModelError {
    config.error(format!("the language model is of type `{model_type}`: opt, t5 and llama are supported"))
}

/// Vocabularies are raised to multiples of this.
const VOCABULARY_STEP: usize = 64;

/// A frozen language model of one of the families.
#[derive(Debug, Clone)]
pub enum LanguageModel {
    /// Decoder-only, learned positions.
    Opt(Opt),
    /// Encoder-decoder, relative positions.
    T5(T5),
    /// Decoder-only, rotary positions.
    Llama(Llama),
}

impl From<Opt> for LanguageModel {
    fn from(model: Opt) -> Self {
        Self::Opt(model)
    }
}

impl From<T5> for LanguageModel {
    fn from(model: T5) -> Self {
        Self::T5(model)
    }
}

impl From<Llama> for LanguageModel {
    fn from(model: Llama) -> Self {
        Self::Llama(model)
    }
}

impl LanguageModel {
    /// Loads a language model's folder, or the language model of a BLIP-2 folder, to a
    /// `place` without autodiff.
    ///
    /// # Errors
    /// A kind of model that is not one of the families, an unsupported setting, or weights that do not fit
    /// the configuration.
    pub fn open(folder: &Path, place: impl Into<Placement>) -> Result<Self, ModelError> {
        let config = FolderConfig::open(folder)?;
        match config.language_model().1 {
            "opt" => Opt::open(folder, place).map(Self::Opt),
            "t5" => T5::open(folder, place).map(Self::T5),
            "llama" => Llama::open(folder, place).map(Self::Llama),
            other => Err(unknown(&config, other)),
        }
    }

    /// Requires that [`LanguageModel::open`] would find every tensor in its shape; no values are read.
    ///
    /// # Errors
    /// As [`LanguageModel::open`].
    pub fn check(folder: &Path) -> Result<Fit, ModelError> {
        let config = FolderConfig::open(folder)?;
        match config.language_model().1 {
            "opt" => Opt::check(folder),
            "t5" => T5::check(folder),
            "llama" => Llama::check(folder),
            other => Err(unknown(&config, other)),
        }
    }

    /// The dropout probability of the model's own training, for [`LanguageModel::training_loss`].
    pub fn dropout(&self) -> f64 {
        match self {
            Self::Opt(model) => model.config().dropout,
            // Published without dropout.
            Self::Llama(_) => 0.0,
            Self::T5(model) => model.config().dropout,
        }
    }

    /// Width of the embeddings of the language model in a folder or GGUF file; its weights are not read.
    ///
    /// # Errors
    /// A kind of model that is not one of the families.
    pub fn width_of(folder: &Path) -> Result<usize, ModelError> {
        let config = FolderConfig::open(folder)?;
        Ok(match config.language_model().1 {
            "opt" => OptConfig::read(&config)?.embed_width(),
            "t5" => T5Config::read(&config)?.width,
            "llama" => LlamaConfig::read(&config)?.width,
            other => return Err(unknown(&config, other)),
        })
    }

    /// The `model_type` of the family.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Opt(_) => "opt",
            Self::T5(_) => "t5",
            Self::Llama(_) => "llama",
        }
    }

    /// The name under which LAVIS stores the model.
    pub fn prefix(&self) -> &'static str {
        match self {
            Self::Opt(_) => OPT_PREFIX,
            Self::T5(_) => T5_PREFIX,
            Self::Llama(_) => LLAMA_PREFIX,
        }
    }

    /// Width of the embeddings.
    pub fn width(&self) -> usize {
        match self {
            Self::Opt(model) => model.config().embed_width(),
            Self::T5(model) => model.config().width,
            Self::Llama(model) => model.config().width,
        }
    }

    /// Longest input in tokens.
    pub fn max_positions(&self) -> usize {
        match self {
            Self::Opt(model) => model.config().max_position_embeddings,
            Self::T5(_) => T5_POSITIONS,
            Self::Llama(model) => model.config().max_position_embeddings,
        }
    }

    /// The special tokens, and the size of the vocabulary.
    pub fn special_tokens(&self) -> SpecialTokens {
        match self {
            Self::Opt(model) => model.config().into(),
            Self::T5(model) => model.config().into(),
            Self::Llama(model) => model.config().into(),
        }
    }

    /// Raises the vocabulary to at least `tokens`, in steps of 64 as published models do. The new tokens' vectors
    /// are the mean of the others.
    pub fn grow_vocabulary(&mut self, tokens: usize) {
        if tokens <= self.special_tokens().vocab_size {
            return;
        }
        let rows = tokens.next_multiple_of(VOCABULARY_STEP);
        match self {
            Self::Opt(model) => model.grow_vocabulary(rows),
            Self::T5(model) => model.grow_vocabulary(rows),
            Self::Llama(model) => model.grow_vocabulary(rows),
        }
    }

    /// The tokens' vectors, without positions.
    ///
    /// # Shapes
    /// - ids `[b, T]`, each below the vocabulary's size; output `[b, T, width]`
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        match self {
            Self::Opt(model) => model.embed(ids),
            Self::T5(model) => model.embed(ids),
            Self::Llama(model) => model.embed(ids),
        }
    }

    /// Scores of every next token at every position.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding); output
    ///   `[b, S, vocabulary]`
    ///
    /// # Errors
    /// An encoder-decoder, which scores what follows its input and not the input: see [`T5::forward`].
    pub fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        match self {
            Self::Opt(model) => model.forward(inputs_embeds, attention_mask),
            Self::Llama(model) => model.forward(inputs_embeds, attention_mask),
            Self::T5(_) => {
                let reason =
                    "an encoder-decoder scores a text that follows the input: `T5::forward` takes both";
                Err(ModelError::input("language model", reason))
            }
        }
    }

    /// Continues prompts of embeddings; a text has its end token, if it reached one, as its last token.
    ///
    /// `prompts` are the prompts' token ids, which the repetition rules of decoder-only models see; a text also ends
    /// where `stop` holds for its new tokens.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding); the last position
    ///   of every row is a token, so shorter prompts are padded on the left
    pub fn generate(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        stop: Stop<'_>,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        match self {
            Self::Opt(model) => {
                let mut decoder = CausalDecoder::new(model, inputs_embeds, attention_mask);
                generate_until(&mut decoder, prompts, options, stop)
            }
            Self::Llama(model) => {
                let mut decoder = CausalDecoder::new(model, inputs_embeds, attention_mask);
                generate_until(&mut decoder, prompts, options, stop)
            }
            Self::T5(model) => {
                let start = vec![vec![model.config().decoder_start_token_id]; prompts.len()];
                let mut decoder = T5Decoder::new(model, inputs_embeds, attention_mask)?;
                generate_until(&mut decoder, &start, options, stop)
            }
        }
    }
}

/// Refuses a folder whose `config.json` is not that of a supported language model; reads no weights.
///
/// # Errors
/// Another kind of model, or a variant that is not supported, named with its field.
pub fn check_family(folder: &Path) -> Result<(), ModelError> {
    let config = FolderConfig::open(folder)?;
    match config.language_model().1 {
        "opt" => OptConfig::read(&config).map(drop),
        "t5" => T5Config::read(&config).map(drop),
        "llama" => LlamaConfig::read(&config).map(drop),
        other => Err(unknown(&config, other)),
    }
}

impl NamedTensors for LanguageModel {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), ModelError> {
        match self {
            Self::Opt(model) => model.visit_tensors(prefix, visitor),
            Self::T5(model) => model.visit_tensors(prefix, visitor),
            Self::Llama(model) => model.visit_tensors(prefix, visitor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_configuration_chooses_the_family() {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones");
        for (folder, family) in [("opt-tiny", "opt"), ("t5-tiny", "t5")] {
            let model = LanguageModel::open(&assets.join(folder), &Device::flex()).unwrap();
            assert_eq!((model.model_type(), model.special_tokens().vocab_size), (family, 4096));
        }
        let error = LanguageModel::open(&assets.join("bert-tiny"), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("`bert`") && error.contains("opt, t5 and llama"), "{error}");
    }
}
