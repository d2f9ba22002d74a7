//! OPT as the model behind a search for the next tokens.

use burn::tensor::{Int, Tensor};

use super::{Opt, OptCache};
use crate::ModelError;
use crate::generate::Decoder;
use crate::host::floats;

/// A batch of prompts and what was generated after them.
#[derive(Debug)]
pub struct OptDecoder<'a> {
    model: &'a Opt,
    cache: OptCache,
    prompt: Tensor<3>,
    mask: Tensor<2, Int>,
}

impl<'a> OptDecoder<'a> {
    /// Starts from prompts of embeddings.
    ///
    /// # Shapes
    /// - prompt `[b, S, width]`; mask `[b, S]` (1: a token, 0: padding); the last position of every row is a
    ///   token, so shorter prompts are padded on the left
    pub fn new(model: &'a Opt, prompt: Tensor<3>, mask: Tensor<2, Int>) -> Self {
        Self { model, cache: OptCache::default(), prompt, mask }
    }

    fn read(&mut self, embeds: Tensor<3>) -> Result<Vec<f32>, ModelError> {
        let length = embeds.dims()[1];
        let hidden = self.model.extend(embeds, self.mask.clone(), &mut self.cache)?;
        floats(self.model.logits_of(hidden.narrow(1, length - 1, 1)))
    }
}

impl Decoder for OptDecoder<'_> {
    fn vocabulary(&self) -> usize {
        self.model.config().vocab_size
    }

    fn start(&mut self) -> Result<Vec<f32>, ModelError> {
        self.read(self.prompt.clone())
    }

    fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let device = self.mask.device();
        let rows = self.mask.dims()[0];
        if parents.len() != rows || parents.iter().enumerate().any(|(row, parent)| row != *parent) {
            let parents: Vec<i32> = parents.iter().map(|parent| *parent as i32).collect();
            let parents = Tensor::<1, Int>::from_ints(parents.as_slice(), &device);
            self.cache.select(&parents);
            self.mask = self.mask.clone().select(0, parents);
        }
        self.mask = Tensor::cat(vec![self.mask.clone(), Tensor::ones([tokens.len(), 1], &device)], 1);
        let ids: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
        let ids = Tensor::<1, Int>::from_ints(ids.as_slice(), &device).reshape([tokens.len(), 1]);
        self.read(self.model.embed(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::small;
    use super::*;
    use crate::generate::{GenerateOptions, generate};
    use burn::tensor::Device;

    /// Continues `prompt` without a cache, a search, or a batch.
    fn by_hand(model: &Opt, prompt: &[i32], tokens: usize) -> Vec<u32> {
        let mut ids = prompt.to_vec();
        for _ in 0..tokens {
            let input = Tensor::<1, Int>::from_ints(ids.as_slice(), &Device::flex()).unsqueeze::<2>();
            let mask = Tensor::<2, Int>::ones([1, ids.len()], &Device::flex());
            let logits = model.forward(model.embed(input), mask).unwrap();
            let last = floats(logits.narrow(1, ids.len() - 1, 1)).unwrap();
            let best = last.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            ids.push(best as i32);
        }
        ids[prompt.len()..].iter().map(|id| *id as u32).collect()
    }

    #[test]
    fn a_padded_batch_continues_like_each_prompt_alone() {
        let model = small();
        let ids = Tensor::<2, Int>::from_ints([[1, 1, 2, 5], [2, 8, 9, 3]], &Device::flex());
        let mask = ids.clone().not_equal_scalar(1).int();
        let mut decoder = OptDecoder::new(&model, model.embed(ids), mask);
        let options = GenerateOptions { max_new_tokens: 6, ..GenerateOptions::default() };
        let got = generate(&mut decoder, &[vec![2, 5], vec![2, 8, 9, 3]], &options).unwrap();
        assert_eq!(got, [by_hand(&model, &[2, 5], 6), by_hand(&model, &[2, 8, 9, 3], 6)]);
    }
}
