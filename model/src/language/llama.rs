//! Llama, a frozen decoder-only language model: rotary positions, gated feed-forward parts, key heads that
//! query heads may share. Vicuna and SmolLM2 have its layout.

mod config;
mod ends;
#[cfg(test)]
mod gguf_tests;
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
    use crate::filled::filled;
    use crate::language::decoder_only::tests::{in_pieces_as_at_once, padded_as_not};
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

    #[test]
    fn reading_in_pieces_equals_reading_at_once() {
        in_pieces_as_at_once(&small());
    }

    #[test]
    fn left_padding_changes_nothing() {
        padded_as_not(&small());
    }

    #[test]
    fn sequences_beyond_the_limit_are_refused() {
        let mask = Tensor::<2, Int>::ones([1, 13], &Device::flex());
        let embeds = Tensor::<3>::zeros([1, 13, 8], &Device::flex());
        let error = small().forward(embeds, mask).unwrap_err().to_string();
        assert!(error.contains("13 positions") && error.contains("12"), "{error}");
    }
}
