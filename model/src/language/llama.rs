//! Llama, a frozen decoder-only language model: rotary positions, gated feed-forward parts, key heads that
//! query heads may share. Vicuna and SmolLM2 have its layout.

mod config;
mod ends;
mod layer;
#[cfg(test)]
mod reference;
mod rotary;
mod scaling;

pub use config::LlamaConfig;
pub use scaling::RopeScaling;

use super::decoder_only::DecoderOnly;
use layer::LlamaLayer;

/// A Llama language model; its names start with `llm_model`.
pub(crate) type Llama = DecoderOnly<LlamaLayer>;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::nn::cache::KeyValueCache;
    use crate::train::flat::tests::filled;
    use burn::tensor::{Device, Int, Tensor};

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
