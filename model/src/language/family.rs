//! What every family of language models gives: sizes read from a folder, and a model of them as an object.

use std::any::Any;
use std::fmt;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use super::adaptable::Adaptable;
use super::generation::{GenerateOptions, Stop};
use super::kept::LanguageKept;
use super::texts::{Context, Texts};
use super::tokens::SpecialTokens;
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{Fit, WeightSource, check_beside, load_beside};
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::erased::{ErasedVisitor, Stopped};
use blip2_tensors::nn::flops::Flops;
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::loss::Loss;

/// What a family is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    /// The `model_type` of its configurations.
    pub(crate) model_type: &'static str,
    /// The name under which LAVIS stores the language model; those of all its tensors start with it. Families
    /// that LAVIS does not have take `llm_model`.
    pub(crate) prefix: &'static str,
    /// The maps that adapters may be for.
    pub(crate) adaptable: Adaptable,
}

/// What `config.json` says of a model, whatever its family.
pub trait LanguageSizes: Any + fmt::Debug + Send + Sync {
    /// Width of the tokens' vectors, which is that of a soft prompt.
    fn width(&self) -> usize;

    /// Width of the layers.
    fn layer_width(&self) -> usize {
        self.width()
    }

    /// Longest input in tokens.
    fn max_positions(&self) -> usize;

    /// Dropout probability of the model's own training; 0 where it was published without.
    fn dropout(&self) -> f64;

    /// The special tokens, and the size of the vocabulary.
    fn special_tokens(&self) -> SpecialTokens;

    /// The token that the decoder of an encoder-decoder starts from.
    fn decoder_start(&self) -> Option<u32> {
        None
    }

    /// The section of an exported `config.json`, without what it says for all families.
    ///
    /// # Errors
    /// Numbers that JSON does not have.
    fn section(&self) -> Result<Value, ModelError>;

    /// Operations of one text of `length` tokens after `read` positions, all weights being frozen.
    fn flops(&self, read: usize, length: usize) -> Flops;

    /// Of such a text, the rows that the map of this name multiplies.
    fn rows_of(&self, _map: &str, read: usize, length: usize) -> usize {
        read + length
    }

    /// What the passes over such a text keep for its gradient.
    fn kept(&self, read: usize, length: usize) -> LanguageKept;
}

/// The configuration of one family.
pub(crate) trait FamilyConfig: LanguageSizes + Clone + 'static {
    /// What the family is called.
    const NAMES: Names;

    /// Reads a folder's `config.json`, or the `text_config` of a BLIP-2 folder.
    ///
    /// # Errors
    /// Another language model, or a variant that is not supported, named with its field.
    fn read(config: &FolderConfig) -> Result<Self, ModelError>;

    /// Raises the vocabulary to `rows` tokens.
    fn set_vocabulary(&mut self, rows: usize);
}

/// A frozen language model of any family.
pub(crate) trait FamilyModel: fmt::Debug + Send + Sync {
    /// What its family is called.
    fn names(&self) -> Names;

    /// Its sizes and special tokens.
    fn sizes(&self) -> &dyn LanguageSizes;

    /// A copy that shares the tensors.
    fn boxed(&self) -> Box<dyn FamilyModel>;

    /// Raises the vocabulary to `rows` tokens that no text has.
    fn grow_vocabulary(&mut self, rows: usize);

    /// The tokens' vectors, without positions.
    ///
    /// # Shapes
    /// - ids `[b, T]`, each below the vocabulary's size; output `[b, T, width]`
    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3>;

    /// Scores of every next token at every position: of the input itself, or, for an encoder-decoder, of the
    /// text that was `written` for it.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]`; written `[b, T]`, starting with the start
    ///   token; output `[b, S, vocabulary]`, or `[b, T, vocabulary]`
    ///
    /// # Errors
    /// A sequence that does not fit; a text for a decoder-only model, or none for an encoder-decoder.
    fn scores(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        written: Option<Tensor<2, Int>>,
    ) -> Result<Tensor<3>, ModelError>;

    /// The cross-entropy of texts behind what is read before them, summed over the labels.
    ///
    /// # Errors
    /// A sequence that does not fit; an encoder-decoder that has nothing to read.
    fn loss(
        &self,
        context: Context,
        texts: &Texts<'_>,
        dropout: &mut Dropout,
        device: &Device,
    ) -> Result<Loss, ModelError>;

    /// Continues prompts of embeddings, whose token ids are `prompts`.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]`
    fn generate(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        stop: Stop<'_>,
    ) -> Result<Vec<Vec<u32>>, ModelError>;

    /// As [`NamedTensors::visit_tensors`].
    fn visit_erased(&mut self, prefix: &str, visitor: &mut dyn ErasedVisitor) -> Result<(), Stopped>;
}

/// A family's model, made from its configuration and the weights beside it.
pub(crate) trait Published: FamilyModel + NamedTensors + Sized + 'static {
    /// The family's configuration.
    type Config: FamilyConfig;

    /// Patterns of published names that no model needs.
    const UNUSED: &'static [&'static str] = &[];

    /// A model of zeros, to be loaded.
    ///
    /// # Errors
    /// Sizes that no model can have.
    fn init(config: &Self::Config, device: &Device) -> Result<Self, ModelError>;

    /// The weights under the names that the model has, and what they say beyond the configuration.
    fn fitted(config: &mut Self::Config, weights: WeightSource) -> WeightSource;
}

/// Loads a model's folder, or the language model of a BLIP-2 folder, to a `place` without autodiff.
///
/// # Errors
/// Another model, an unsupported setting, or weights that do not fit the configuration.
pub(crate) fn open<M: Published>(folder: &Path, place: impl Into<Placement>) -> Result<M, ModelError> {
    let place = place.into();
    let (mut model, source) = prepare::<M>(folder, &place.device)?;
    load_beside(&mut model, M::Config::NAMES.prefix, &source, &place, M::UNUSED)?;
    Ok(model)
}

/// Requires that [`open`] would find every tensor in its shape; no values are read.
///
/// # Errors
/// As [`open`].
pub(crate) fn check<M: Published>(folder: &Path) -> Result<Fit, ModelError> {
    let (mut model, source) = prepare::<M>(folder, &Device::flex())?;
    check_beside(&mut model, M::Config::NAMES.prefix, &source, M::UNUSED)
}

/// A model of zeros and the weights that are to be loaded into it.
fn prepare<M: Published>(folder: &Path, device: &Device) -> Result<(M, WeightSource), ModelError> {
    let mut config = M::Config::read(&FolderConfig::open(folder)?)?;
    let source = M::fitted(&mut config, WeightSource::open_huggingface(folder)?);
    Ok((M::init(&config, device)?, source))
}

/// A configuration as JSON.
pub(crate) fn to_value(config: &impl serde::Serialize) -> Result<Value, ModelError> {
    serde_json::to_value(config).map_err(|error| ModelError::input("configuration", error.to_string()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A family's configuration from the text of a `config.json`.
    pub(crate) fn read<C: FamilyConfig>(text: &str) -> Result<C, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        C::read(&FolderConfig::open(folder.path())?)
    }
}
