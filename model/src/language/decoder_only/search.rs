//! A decoder-only model behind a search for the next tokens.

use burn::tensor::{Device, Int, Tensor};

use super::layer::DecoderLayer;
use super::model::DecoderOnly;
use crate::language::family::LanguageSizes;
use crate::language::generation::Decoder;
use blip2_model_files::error::ModelError;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::causal::padding_of;
use blip2_tensors::nn::rows::{moved_rows, next_column};

/// A batch of prompts and what was generated after them.
#[derive(Debug)]
pub(super) struct PromptDecoder<'a, L: DecoderLayer> {
    model: &'a DecoderOnly<L>,
    cache: KeyValueCache,
    prompt: Tensor<3>,
    /// Of the positions read; none where all of them are tokens.
    mask: Option<Tensor<2, Int>>,
    /// The prompt that each row continues.
    prompts: Vec<usize>,
    device: Device,
}

impl<'a, L: DecoderLayer> PromptDecoder<'a, L> {
    /// Starts from prompts of embeddings.
    ///
    /// # Shapes
    /// - prompt `[b, S, width]`; mask `[b, S]` (1: a token, 0: padding); the last position of every row is a
    ///   token, so shorter prompts are padded on the left
    pub(super) fn new(model: &'a DecoderOnly<L>, prompt: Tensor<3>, mask: Tensor<2, Int>) -> Self {
        let (prompts, device) = ((0..prompt.dims()[0]).collect(), prompt.device());
        Self { model, cache: KeyValueCache::default(), prompt, mask: Some(mask), prompts, device }
    }

    fn read(&mut self, embeds: Tensor<3>) -> Result<Vec<f32>, ModelError> {
        let length = embeds.dims()[1];
        let hidden = self.model.extend(embeds, self.mask.clone(), &mut self.cache)?;
        Ok(floats(self.model.logits_of(hidden.narrow(1, length - 1, 1)))?)
    }
}

impl<L: DecoderLayer> Decoder for PromptDecoder<'_, L> {
    fn vocabulary(&self) -> usize {
        self.model.config().special_tokens().vocab_size
    }

    fn start(&mut self) -> Result<Vec<f32>, ModelError> {
        self.mask = self.mask.take().map(padding_of).transpose()?.flatten();
        self.read(self.prompt.clone())
    }

    fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        self.cache.follow(parents);
        let prompts: Vec<usize> = parents.iter().map(|parent| self.prompts[*parent]).collect();
        if let Some(mask) = self.mask.take() {
            // The beams of a prompt have the same padding: they may change places.
            let moved =
                (prompts != self.prompts).then(|| moved_rows(parents, self.prompts.len(), &self.device));
            let mask = moved.flatten().into_iter().fold(mask, |mask, moved| mask.select(0, moved));
            self.mask = Some(Tensor::cat(vec![mask, Tensor::ones([tokens.len(), 1], &self.device)], 1));
        }
        self.prompts = prompts;
        self.read(self.model.embed(next_column(tokens, &self.device)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::generation::{GenerateOptions, generate};
    use burn::tensor::Device;

    /// Continues `prompt` without a search or a batch, and reads everything again for each token.
    fn by_hand(model: &DecoderOnly<impl DecoderLayer>, prompt: &[i32], tokens: usize) -> Vec<u32> {
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

    fn continues_like_each_prompt_alone(model: &DecoderOnly<impl DecoderLayer>) {
        let ids = Tensor::<2, Int>::from_ints([[1, 1, 2, 5], [2, 8, 9, 3]], &Device::flex());
        let mask = ids.clone().not_equal_scalar(1).int();
        let mut decoder = PromptDecoder::new(model, model.embed(ids), mask);
        let options = GenerateOptions { max_new_tokens: 6, ..GenerateOptions::default() };
        let got = generate(&mut decoder, &[vec![2, 5], vec![2, 8, 9, 3]], &options).unwrap();
        assert_eq!(got, [by_hand(model, &[2, 5], 6), by_hand(model, &[2, 8, 9, 3], 6)]);
    }

    /// What a search reads is followed by no tape, and its mask is gone where nothing is padding.
    fn writes_plainly(model: &DecoderOnly<impl DecoderLayer>) {
        let ids = Tensor::<2, Int>::from_ints([[2, 5, 7], [2, 8, 9]], &Device::flex());
        let mut decoder = PromptDecoder::new(model, model.embed(ids.clone()), ids.ones_like());
        decoder.start().unwrap();
        decoder.advance(&[1, 1, 0], &[3, 4, 5]).unwrap();
        assert!(decoder.mask.is_none() && decoder.prompts == [1, 1, 0]);
        let next = model.embed(next_column(&[3, 4, 5], &decoder.device));
        let hidden = model.extend(next, None, &mut decoder.cache).unwrap();
        assert!(!hidden.is_autodiff() && !hidden.is_tracked() && !hidden.is_require_grad());
    }

    #[test]
    fn writing_keeps_no_tape_and_no_mask() {
        writes_plainly(&crate::language::opt::tests::small());
        writes_plainly(&crate::language::llama::tests::small());
    }

    /// Padding needs a mask and its absence needs none: both give the same text, by one row and by several.
    fn masks_change_nothing(model: &DecoderOnly<impl DecoderLayer>) {
        for beams in [1, 3] {
            let options = GenerateOptions { max_new_tokens: 6, beams, ..GenerateOptions::default() };
            let run = |ids: Tensor<2, Int>, prompts: &[Vec<u32>]| {
                let mask = ids.clone().not_equal_scalar(1).int();
                generate(&mut PromptDecoder::new(model, model.embed(ids), mask), prompts, &options).unwrap()
            };
            let padded = Tensor::from_ints([[1, 1, 2, 5], [2, 8, 9, 3]], &Device::flex());
            let together = run(padded, &[vec![2, 5], vec![2, 8, 9, 3]]);
            let first = run(Tensor::from_ints([[2, 5]], &Device::flex()), &[vec![2, 5]]);
            let second = run(Tensor::from_ints([[2, 8, 9, 3]], &Device::flex()), &[vec![2, 8, 9, 3]]);
            assert_eq!(together, [first, second].concat(), "{beams} beams");
        }
    }

    #[test]
    fn a_batch_with_padding_equals_each_prompt_alone_with_beams_too() {
        masks_change_nothing(&crate::language::opt::tests::small());
        masks_change_nothing(&crate::language::llama::tests::small());
    }

    #[test]
    fn a_padded_batch_continues_like_each_prompt_alone() {
        continues_like_each_prompt_alone(&crate::language::opt::tests::small());
        continues_like_each_prompt_alone(&crate::language::llama::tests::small());
    }
}
