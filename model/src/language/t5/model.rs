//! T5's encoder and decoder, with the token table and the output map.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::config::T5Config;
use super::stack::{Encoded, Stack};
use blip2_model_files::error::ModelError;
use blip2_tensors::device::cast::in_f32;
use blip2_tensors::nn::attention::BLOCKED;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::causal::{Visible, check_sequence};
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::layers::{Embedding, Linear};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// The output map's name below the model's.
pub(super) const HEAD: &str = "lm_head";

/// A T5 language model; its names start with `t5_model`.
///
/// Its tensors are plain, so that no gradient of a weight is ever computed; the gradient flows through to
/// the inputs where these are on an autodiff device.
#[derive(Module, Debug)]
pub(crate) struct T5 {
    pub(super) shared: Embedding,
    pub(super) encoder: Stack,
    pub(super) decoder: Stack,
    /// Absent where the token table is the output map.
    pub(super) lm_head: Option<Linear>,
    #[module(skip)]
    pub(super) config: T5Config,
}

impl T5 {
    /// A model of zeros, to be loaded.
    pub(crate) fn new(config: &T5Config, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let (width, vocabulary) = (config.width, config.vocab_size);
        Ok(Self {
            shared: Embedding::new(vocabulary, width, device),
            encoder: Stack::encoder(config, device),
            decoder: Stack::decoder(config, device),
            lm_head: (!config.tie_word_embeddings).then(|| Linear::new(width, vocabulary, false, device)),
            config: config.clone(),
        })
    }

    /// The sizes and special tokens.
    pub(crate) fn config(&self) -> &T5Config {
        &self.config
    }

    /// The tokens' vectors.
    ///
    /// # Shapes
    /// - ids `[b, T]`, each below the vocabulary's size; output `[b, T, width]`
    pub(crate) fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.shared.forward(ids)
    }

    /// Scores of every next token at every position of the text that the decoder has written.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]` and attention_mask `[b, S]` (1: a token, 0: padding) of the encoder's
    ///   input; written `[b, T]`, starting with the start token; output `[b, T, vocabulary]`
    pub(crate) fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        written: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        self.training_scores(inputs_embeds, attention_mask, written, &mut Dropout::off())
    }

    /// [`T5::forward`] with `dropout` inside encoder and decoder, as the reference trains, which leaves the
    /// frozen model in training mode.
    ///
    /// # Shapes
    /// - those of [`T5::forward`]
    pub(crate) fn training_scores(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        written: Tensor<2, Int>,
        dropout: &mut Dropout,
    ) -> Result<Tensor<3>, ModelError> {
        let encoded = self.encode(inputs_embeds, Some(attention_mask), dropout)?;
        Ok(self.logits_of(self.decode(written, &encoded, &mut KeyValueCache::default(), dropout)))
    }

    /// What the decoder has written when it is to write each of `ids`: the start token and all but the last.
    ///
    /// # Shapes
    /// - ids and output `[b, T]`
    pub(crate) fn shifted_right(&self, ids: Tensor<2, Int>) -> Tensor<2, Int> {
        let [rows, length] = ids.dims();
        let start = Tensor::full([rows, 1], self.config.decoder_start_token_id as i32, &ids.device());
        Tensor::cat(vec![start, ids], 1).narrow(1, 0, length)
    }

    /// What the decoder sees of an input; without a mask, all positions are tokens.
    pub(super) fn encode(
        &self,
        inputs_embeds: Tensor<3>,
        mask: Option<Tensor<2, Int>>,
        dropout: &mut Dropout,
    ) -> Result<Encoded, ModelError> {
        check_sequence(&inputs_embeds, mask.as_ref(), 0, self.config.width, usize::MAX)?;
        let visible = match mask {
            Some(mask) => {
                Visible::Masked((mask.float().unsqueeze_dims::<4>(&[1, 2]) - 1.0) * -f64::from(BLOCKED))
            }
            None => Visible::All,
        };
        let output =
            self.encoder.forward(inputs_embeds, &visible, &mut KeyValueCache::default(), None, dropout);
        Ok(Encoded { layers: self.decoder.key_values(&output), visible })
    }

    /// The decoder's output for tokens that follow those in `cache`, to which they are added.
    ///
    /// # Shapes
    /// - ids `[b, n]`; output `[b, n, width]`
    pub(super) fn decode(
        &self,
        ids: Tensor<2, Int>,
        encoded: &Encoded,
        cache: &mut KeyValueCache,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let [_, rows] = ids.dims();
        self.decoder.forward(self.embed(ids), &Visible::to_last(rows, None), cache, Some(encoded), dropout)
    }

    pub(super) fn logits_of(&self, hidden: Tensor<3>) -> Tensor<3> {
        let hidden = match self.config.scales_outputs() {
            true => in_f32(hidden) / (self.config.width as f64).sqrt(),
            false => hidden,
        };
        match &self.lm_head {
            Some(head) => head.scores(hidden),
            None => self.shared.scores(hidden, None),
        }
    }
}

impl NamedTensors for T5 {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.shared.visit_tokens(&join(prefix, "shared"), visitor)?;
        self.encoder.visit_tensors(&join(prefix, "encoder"), visitor)?;
        self.decoder.visit_tensors(&join(prefix, "decoder"), visitor)?;
        match &mut self.lm_head {
            Some(head) => head.visit_tensors(&join(prefix, HEAD), visitor),
            None => Ok(()),
        }
    }
}
