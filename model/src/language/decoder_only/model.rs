//! The body of decoder-only models.

use burn::tensor::{DType, Device, Int, Tensor};

use super::layer::{DecoderEnds, DecoderLayer};
use crate::language::family::LanguageSizes;
use blip2_model_files::error::ModelError;
use blip2_tensors::device::cast::in_numbers;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::causal::{Visible, check_sequence, new_positions};
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::layers::{Embedding, Linear};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// A decoder-only language model.
///
/// Its tensors are plain, so that no gradient of a weight is ever computed; the gradient flows through to
/// the inputs where these are on an autodiff device.
#[derive(Debug, Clone)]
pub(crate) struct DecoderOnly<L: DecoderLayer> {
    pub(in crate::language) embed_tokens: Embedding,
    ends: L::Ends,
    layers: Vec<L>,
    /// Absent where the token table is the output map.
    pub(super) lm_head: Option<Linear>,
    pub(super) config: L::Config,
}

impl<L: DecoderLayer> DecoderOnly<L> {
    /// A model of zeros, to be loaded.
    ///
    /// # Errors
    /// LanguageSizes that no model can have.
    pub(crate) fn new(config: &L::Config, device: &Device) -> Result<Self, ModelError> {
        L::validate(config)?;
        let (width, vocabulary) = (config.width(), config.special_tokens().vocab_size);
        Ok(Self {
            embed_tokens: Embedding::new(vocabulary, width, device),
            ends: L::Ends::new(config, device),
            layers: L::stack(config, device),
            lm_head: (!L::is_tied(config)).then(|| Linear::new(width, vocabulary, false, device)),
            config: config.clone(),
        })
    }

    /// The sizes and special tokens.
    pub(crate) fn config(&self) -> &L::Config {
        &self.config
    }

    /// The tokens' vectors, without positions.
    ///
    /// # Shapes
    /// - ids `[b, T]`, each below the vocabulary's size; output `[b, T, width]`
    pub(crate) fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(ids)
    }

    /// Scores of every next token at every position.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding); output
    ///   `[b, S, vocabulary]`
    ///
    /// # Errors
    /// A sequence that does not fit the model.
    pub(crate) fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        Ok(self.logits_of(self.hidden(inputs_embeds, attention_mask, &mut Dropout::off())?))
    }

    /// What [`DecoderOnly::logits_of`] maps to scores, in the numbers that the matrices are kept in;
    /// `dropout` is the reference's language model left in training mode ([`Dropout::off`] otherwise).
    ///
    /// # Shapes
    /// - inputs_embeds and output `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding)
    ///
    /// # Errors
    /// A sequence that does not fit the model.
    pub(crate) fn hidden(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        dropout: &mut Dropout,
    ) -> Result<Tensor<3>, ModelError> {
        self.read(inputs_embeds, Some(attention_mask), &mut KeyValueCache::default(), dropout)
    }

    /// Scores of every next token, in float32.
    ///
    /// # Shapes
    /// - hidden `[b, n, width]`; output `[b, n, vocabulary]`
    pub(crate) fn logits_of(&self, hidden: Tensor<3>) -> Tensor<3> {
        match &self.lm_head {
            Some(head) => head.scores(hidden),
            None => self.embed_tokens.scores(hidden, None),
        }
    }

    /// Reads further positions after those in `cache` and adds them to it.
    ///
    /// # Shapes
    /// - inputs_embeds and output `[b, n, width]`; attention_mask of the cached and the new positions
    ///   `[b, cache.length() + n]`, or none where all of them are tokens
    pub(in crate::language) fn extend(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: impl Into<Option<Tensor<2, Int>>>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor<3>, ModelError> {
        self.read(inputs_embeds, attention_mask.into(), cache, &mut Dropout::off())
    }

    fn read(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Option<Tensor<2, Int>>,
        cache: &mut KeyValueCache,
        dropout: &mut Dropout,
    ) -> Result<Tensor<3>, ModelError> {
        let ([_, length, _], past) = (inputs_embeds.dims(), cache.length());
        let (width, limit) = (self.config.width(), self.config.max_positions());
        check_sequence(&inputs_embeds, attention_mask.as_ref(), past, width, limit)?;
        let positions = new_positions(attention_mask.clone(), past, length, &inputs_embeds.device());
        let (x, positions) = self.ends.enter(inputs_embeds, positions, &self.config);
        let mut x = in_numbers(x, self.layers.first().map_or(DType::F32, L::kept_in));
        let visible = Visible::to_last(length, attention_mask);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, (cache, index), &positions, &visible, dropout);
        }
        Ok(self.ends.leave(x))
    }
}

impl<L: DecoderLayer> NamedTensors for DecoderOnly<L> {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let body = join(prefix, L::BODY);
        self.embed_tokens.visit_tokens(&join(&body, L::TOKENS), visitor)?;
        self.ends.visit_before(&body, visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_tensors(&join(&body, &format!("{}.{index}", L::LAYERS)), visitor)?;
        }
        self.ends.visit_behind(&body, visitor)?;
        match &mut self.lm_head {
            Some(head) => head.visit_tensors(&join(prefix, L::HEAD), visitor),
            None => Ok(()),
        }
    }
}
