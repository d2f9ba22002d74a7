//! T5's decoder behind a search for the next tokens.

use burn::tensor::{Device, Int, Tensor};

use super::model::T5;
use super::stack::Encoded;
use crate::language::generation::Decoder;
use blip2_model_files::error::ModelError;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::causal::padding_of;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::rows::next_column;

/// A batch of encoded inputs and what was written for them.
#[derive(Debug)]
pub(crate) struct T5Decoder<'a> {
    model: &'a T5,
    encoded: Encoded,
    cache: KeyValueCache,
    /// The input that each row is written for.
    inputs: Vec<usize>,
    device: Device,
}

impl<'a> T5Decoder<'a> {
    /// Reads the inputs.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; mask `[b, S]` (1: a token, 0: padding)
    pub(crate) fn new(
        model: &'a T5,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
    ) -> Result<Self, ModelError> {
        let (inputs, device) = ((0..inputs_embeds.dims()[0]).collect(), inputs_embeds.device());
        let encoded = model.encode(inputs_embeds, padding_of(attention_mask)?, &mut Dropout::off())?;
        Ok(Self { model, encoded, cache: KeyValueCache::default(), inputs, device })
    }

    fn write(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let ids = next_column(tokens, &self.device);
        let hidden = self.model.decode(ids, &self.encoded, &mut self.cache, &mut Dropout::off());
        Ok(floats(self.model.logits_of(hidden))?)
    }
}

impl Decoder for T5Decoder<'_> {
    fn vocabulary(&self) -> usize {
        self.model.config().vocab_size
    }

    fn start(&mut self) -> Result<Vec<f32>, ModelError> {
        self.cache = KeyValueCache::default();
        self.write(&vec![self.model.config().decoder_start_token_id; self.inputs.len()])
    }

    fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        self.cache.follow(parents);
        let inputs: Vec<usize> = parents.iter().map(|parent| self.inputs[*parent]).collect();
        // The beams of an input see the same of it: they may change places.
        if inputs != self.inputs {
            self.encoded.follow(parents);
            self.inputs = inputs;
        }
        self.write(tokens)
    }
}
