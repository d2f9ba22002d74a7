//! A decoder-only model behind a search for the next tokens.

use burn::tensor::{Int, Tensor};

use crate::ModelError;
use crate::cache::KeyValueCache;
use crate::generate::{Decoder, moved_rows, next_column};
use crate::host::floats;

/// A model that reads positions one after the other.
pub(crate) trait CausalModel {
    /// Number of tokens it knows.
    fn vocabulary(&self) -> usize;

    /// The tokens' vectors, without positions.
    ///
    /// # Shapes
    /// - ids `[b, T]`; output `[b, T, width]`
    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3>;

    /// Reads further positions after those in `cache` and adds them to it.
    ///
    /// # Shapes
    /// - inputs_embeds and output `[b, n, width]`; attention_mask of the cached and the new positions
    ///   `[b, cache.length() + n]`
    fn extend(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor<3>, ModelError>;

    /// Scores of every next token.
    ///
    /// # Shapes
    /// - hidden `[b, n, width]`; output `[b, n, vocabulary]`
    fn logits_of(&self, hidden: Tensor<3>) -> Tensor<3>;
}

/// A batch of prompts and what was generated after them.
#[derive(Debug)]
pub(super) struct CausalDecoder<'a, M> {
    model: &'a M,
    cache: KeyValueCache,
    prompt: Tensor<3>,
    mask: Tensor<2, Int>,
}

impl<'a, M: CausalModel> CausalDecoder<'a, M> {
    /// Starts from prompts of embeddings.
    ///
    /// # Shapes
    /// - prompt `[b, S, width]`; mask `[b, S]` (1: a token, 0: padding); the last position of every row is a
    ///   token, so shorter prompts are padded on the left
    pub(super) fn new(model: &'a M, prompt: Tensor<3>, mask: Tensor<2, Int>) -> Self {
        Self { model, cache: KeyValueCache::default(), prompt, mask }
    }

    fn read(&mut self, embeds: Tensor<3>) -> Result<Vec<f32>, ModelError> {
        let length = embeds.dims()[1];
        let hidden = self.model.extend(embeds, self.mask.clone(), &mut self.cache)?;
        floats(self.model.logits_of(hidden.narrow(1, length - 1, 1)))
    }
}

impl<M: CausalModel> Decoder for CausalDecoder<'_, M> {
    fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }

    fn start(&mut self) -> Result<Vec<f32>, ModelError> {
        self.read(self.prompt.clone())
    }

    fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let device = self.mask.device();
        if let Some(parents) = moved_rows(parents, self.mask.dims()[0], &device) {
            self.cache.select(&parents);
            self.mask = self.mask.clone().select(0, parents);
        }
        self.mask = Tensor::cat(vec![self.mask.clone(), Tensor::ones([tokens.len(), 1], &device)], 1);
        self.read(self.model.embed(next_column(tokens, &device)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{GenerateOptions, generate};
    use burn::tensor::Device;

    /// Continues `prompt` without a search or a batch, and reads everything again for each token.
    fn by_hand(model: &impl CausalModel, prompt: &[i32], tokens: usize) -> Vec<u32> {
        let mut ids = prompt.to_vec();
        for _ in 0..tokens {
            let input = Tensor::<1, Int>::from_ints(ids.as_slice(), &Device::flex()).unsqueeze::<2>();
            let mask = Tensor::<2, Int>::ones([1, ids.len()], &Device::flex());
            let hidden = model.extend(model.embed(input), mask, &mut KeyValueCache::default()).unwrap();
            let last = floats(model.logits_of(hidden.narrow(1, ids.len() - 1, 1))).unwrap();
            let best = last.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            ids.push(best as i32);
        }
        ids[prompt.len()..].iter().map(|id| *id as u32).collect()
    }

    fn continues_like_each_prompt_alone(model: &impl CausalModel) {
        let ids = Tensor::<2, Int>::from_ints([[1, 1, 2, 5], [2, 8, 9, 3]], &Device::flex());
        let mask = ids.clone().not_equal_scalar(1).int();
        let mut decoder = CausalDecoder::new(model, model.embed(ids), mask);
        let options = GenerateOptions { max_new_tokens: 6, ..GenerateOptions::default() };
        let got = generate(&mut decoder, &[vec![2, 5], vec![2, 8, 9, 3]], &options).unwrap();
        assert_eq!(got, [by_hand(model, &[2, 5], 6), by_hand(model, &[2, 8, 9, 3], 6)]);
    }

    #[test]
    fn a_padded_batch_continues_like_each_prompt_alone() {
        continues_like_each_prompt_alone(&crate::opt::tests::small());
        continues_like_each_prompt_alone(&crate::llama::tests::small());
    }
}
