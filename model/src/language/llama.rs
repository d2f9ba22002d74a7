//! Llama, a frozen decoder-only language model: rotary positions, gated feed-forward parts, key heads that
//! query heads may share. Vicuna and SmolLM2 have its layout.

mod config;
mod layer;
#[cfg(test)]
mod reference;
mod rotary;
mod scaling;

pub use config::LlamaConfig;
pub use scaling::RopeScaling;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};

use crate::device::cast::in_numbers;
use crate::device::placement::Placement;
use crate::error::ModelError;
use crate::files::config::FolderConfig;
use crate::files::weights::{Fit, WeightSource, check_beside, load};
use crate::language::CausalModel;
use crate::nn::cache::KeyValueCache;
use crate::nn::causal::{Visible, check_sequence, new_positions};
use crate::nn::layers::{Embedding, Linear, RmsNorm, grown};
use crate::nn::tensors::{NamedTensors, TensorVisitor, join};
use layer::LlamaLayer;
use rotary::Rotations;

/// The name under which LAVIS stores the language model.
pub const LLAMA_PREFIX: &str = "llm_model";

/// A Llama language model; its names start with `llm_model`.
///
/// Its tensors are plain, so that no gradient of a weight is ever computed; the gradient flows through to
/// the inputs where these are on an autodiff device.
#[derive(Module, Debug)]
pub struct Llama {
    embed_tokens: Embedding,
    layers: Vec<LlamaLayer>,
    norm: RmsNorm,
    /// Absent where the token table is the output map.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: LlamaConfig,
}

impl Llama {
    /// A model of zeros, to be loaded.
    pub fn new(config: &LlamaConfig, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let (width, vocabulary) = (config.width, config.vocab_size);
        Ok(Self {
            embed_tokens: Embedding::new(vocabulary, width, device),
            layers: (0..config.depth).map(|_| LlamaLayer::new(config, device)).collect(),
            norm: RmsNorm::new(width, config.rms_norm_eps, device),
            lm_head: (!config.tie_word_embeddings).then(|| Linear::new(width, vocabulary, false, device)),
            config: config.clone(),
        })
    }

    /// Loads a `LlamaForCausalLM` folder, or the language model of a BLIP-2 folder, to a `place` without autodiff.
    ///
    /// # Errors
    /// Another model, an unsupported setting, or weights that do not fit the configuration.
    pub fn open(folder: &Path, place: impl Into<Placement>) -> Result<Self, ModelError> {
        let place = place.into();
        let (mut model, source) = Self::prepare(folder, &place.device)?;
        load(&mut model, LLAMA_PREFIX, &source, &place)?;
        Ok(model)
    }

    /// A model of zeros and the weights that are to be loaded into it.
    fn prepare(folder: &Path, device: &Device) -> Result<(Self, WeightSource), ModelError> {
        let config = LlamaConfig::read(&FolderConfig::open(folder)?)?;
        let model = Self::new(&config, device)?;
        let mut source = WeightSource::open_huggingface(folder)?;
        if config.tie_word_embeddings {
            source = source.with_alias("llm_model.model.embed_tokens.weight", "llm_model.lm_head.weight");
        }
        Ok((model, source))
    }

    /// Requires that `open` would find every tensor in its shape; no values are read.
    pub(crate) fn check(folder: &Path) -> Result<Fit, ModelError> {
        let (mut model, source) = Self::prepare(folder, &Device::flex())?;
        check_beside(&mut model, LLAMA_PREFIX, &source, &[])
    }

    /// Raises the vocabulary to `rows` tokens that no text has.
    pub(crate) fn grow_vocabulary(&mut self, rows: usize) {
        self.embed_tokens = self.embed_tokens.grown(rows);
        if let Some(head) = &mut self.lm_head {
            head.weight = grown(&head.weight, rows);
        }
        self.config.vocab_size = rows;
    }

    /// The sizes and special tokens.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The tokens' vectors.
    ///
    /// # Shapes
    /// - ids `[b, T]`, each below the vocabulary's size; output `[b, T, width]`
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(ids)
    }

    /// Scores of every next token at every position.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding); output
    ///   `[b, S, vocabulary]`
    pub fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        let hidden = self.extend(inputs_embeds, attention_mask, &mut KeyValueCache::default())?;
        Ok(self.logits_of(hidden))
    }
}

impl CausalModel for Llama {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed(ids)
    }

    fn extend(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: impl Into<Option<Tensor<2, Int>>>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor<3>, ModelError> {
        let attention_mask = attention_mask.into();
        let [_, length, _] = inputs_embeds.dims();
        let past = cache.length();
        let limit = self.config.max_position_embeddings;
        check_sequence(&inputs_embeds, attention_mask.as_ref(), past, self.config.width, limit)?;
        let positions = new_positions(attention_mask.clone(), past, length, &inputs_embeds.device());
        let rotations = Rotations::new(positions, &self.config);
        let visible = Visible::to_last(length, attention_mask);
        let kept_in = self.layers.first().map_or(DType::F32, LlamaLayer::kept_in);
        let mut x = in_numbers(inputs_embeds, kept_in);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, (cache, index), &rotations, &visible);
        }
        Ok(self.norm.forward(x))
    }

    fn logits_of(&self, hidden: Tensor<3>) -> Tensor<3> {
        match &self.lm_head {
            Some(head) => head.scores(hidden),
            None => self.embed_tokens.scores(hidden, None),
        }
    }
}

impl NamedTensors for Llama {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), ModelError> {
        let model = join(prefix, "model");
        self.embed_tokens.visit_tensors(&join(&model, "embed_tokens"), visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_tensors(&join(&model, &format!("layers.{index}")), visitor)?;
        }
        self.norm.visit_tensors(&join(&model, "norm"), visitor)?;
        match &mut self.lm_head {
            Some(head) => head.visit_tensors(&join(prefix, "lm_head"), visitor),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::train::flat::tests::filled;

    pub(crate) fn small() -> Llama {
        let config = LlamaConfig {
            width: 8,
            depth: 2,
            heads: 4,
            key_heads: Some(2),
            intermediate: 16,
            vocab_size: 11,
            max_position_embeddings: 12,
            ..LlamaConfig::default()
        };
        filled(Llama::new(&config, &Device::flex()).unwrap())
    }

    fn close(got: Tensor<3>, want: Tensor<3>) {
        let difference = (got - want).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn reading_in_pieces_equals_reading_at_once() {
        let model = small();
        let ids = Tensor::<2, Int>::from_ints([[1, 2, 5, 6, 7], [2, 8, 9, 3, 4]], &Device::flex());
        let mask = ids.clone().not_equal_scalar(1).int();
        let embeds = model.embed(ids);
        let whole = model.extend(embeds.clone(), mask.clone(), &mut KeyValueCache::default()).unwrap();
        let mut cache = KeyValueCache::default();
        for (start, length) in [(0, 2), (2, 1), (3, 2)] {
            let part = embeds.clone().narrow(1, start, length);
            let seen = mask.clone().narrow(1, 0, start + length);
            let hidden = model.extend(part, seen, &mut cache).unwrap();
            // The first position of the first row is padding, whose output means nothing.
            let skip = usize::from(start == 0);
            let want = whole.clone().narrow(1, start + skip, length - skip);
            close(hidden.narrow(1, skip, length - skip), want);
        }
        assert_eq!(cache.length(), 5);
    }

    #[test]
    fn left_padding_changes_nothing() {
        let model = small();
        let ids = Tensor::<2, Int>::from_ints([[1, 1, 2, 5, 6], [2, 5, 6, 1, 1]], &Device::flex());
        let mask = ids.clone().not_equal_scalar(1).int();
        let scores = model.forward(model.embed(ids), mask).unwrap();
        let left = scores.clone().narrow(0, 0, 1).narrow(1, 2, 3);
        close(left, scores.narrow(0, 1, 1).narrow(1, 0, 3));
    }

    #[test]
    fn sequences_beyond_the_limit_are_refused() {
        let mask = Tensor::<2, Int>::ones([1, 13], &Device::flex());
        let embeds = Tensor::<3>::zeros([1, 13, 8], &Device::flex());
        let error = small().forward(embeds, mask).unwrap_err().to_string();
        assert!(error.contains("13 positions") && error.contains("12"), "{error}");
    }
}
