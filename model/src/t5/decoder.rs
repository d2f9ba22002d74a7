//! T5's decoder behind a search for the next tokens.

use burn::tensor::{Int, Tensor};

use super::T5;
use super::stack::Encoded;
use crate::ModelError;
use crate::cache::KeyValueCache;
use crate::generate::{Decoder, moved_rows, next_column};
use crate::host::floats;

/// A batch of encoded inputs and what was written for them.
#[derive(Debug)]
pub(crate) struct T5Decoder<'a> {
    model: &'a T5,
    encoded: Encoded,
    cache: KeyValueCache,
    rows: usize,
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
        let rows = inputs_embeds.dims()[0];
        let encoded = model.encode(inputs_embeds, attention_mask)?;
        Ok(Self { model, encoded, cache: KeyValueCache::default(), rows })
    }

    fn write(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let ids = next_column(tokens, &self.encoded.mask.device());
        let hidden = self.model.decode(ids, &self.encoded, &mut self.cache);
        floats(self.model.logits_of(hidden))
    }
}

impl Decoder for T5Decoder<'_> {
    fn vocabulary(&self) -> usize {
        self.model.config().vocab_size
    }

    fn start(&mut self) -> Result<Vec<f32>, ModelError> {
        self.cache = KeyValueCache::default();
        self.write(&vec![self.model.config().decoder_start_token_id; self.rows])
    }

    fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        if let Some(parents) = moved_rows(parents, self.rows, &self.encoded.mask.device()) {
            self.cache.select(&parents);
            self.encoded.layers.select(&parents);
            self.encoded.mask = self.encoded.mask.clone().select(0, parents);
        }
        self.rows = tokens.len();
        self.write(tokens)
    }
}
