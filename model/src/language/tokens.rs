//! The special tokens of the families.

use crate::error::ModelError;
use crate::language::llama::LlamaConfig;
use crate::language::opt::OptConfig;
use crate::language::t5::T5Config;

/// The special tokens of a language model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// What an empty prompt consists of: the token that starts every text of a decoder-only model, the one
    /// that ends every input of an encoder.
    pub bos: u32,
    /// Fills a batch.
    pub pad: u32,
    /// Any of these ends a text.
    pub eos: Vec<u32>,
    /// Whether a caption ends with a line feed, as published for OPT, and not with the model's end token.
    pub captions_end_with_newline: bool,
    /// Number of tokens.
    pub vocab_size: usize,
}

impl SpecialTokens {
    /// Requires that the token table has a row for each of `tokens`, which go with what `config.json` calls them.
    ///
    /// # Errors
    /// A token outside the vocabulary.
    pub(crate) fn validate(&self, tokens: &[(&str, u32)]) -> Result<(), ModelError> {
        match tokens.iter().find(|(_, token)| *token as usize >= self.vocab_size) {
            None => Ok(()),
            Some((name, token)) => {
                let reason = format!("{name} = {token}, and vocab_size = {}", self.vocab_size);
                Err(ModelError::input("language model configuration", reason))
            }
        }
    }
}

impl From<&OptConfig> for SpecialTokens {
    fn from(config: &OptConfig) -> Self {
        Self {
            bos: config.bos_token_id,
            pad: config.pad_token_id,
            eos: config.eos_token_id.to_vec(),
            captions_end_with_newline: true,
            vocab_size: config.vocab_size,
        }
    }
}

impl From<&T5Config> for SpecialTokens {
    fn from(config: &T5Config) -> Self {
        Self {
            bos: config.eos_token_id,
            pad: config.pad_token_id,
            eos: vec![config.eos_token_id],
            captions_end_with_newline: false,
            vocab_size: config.vocab_size,
        }
    }
}

impl From<&LlamaConfig> for SpecialTokens {
    fn from(config: &LlamaConfig) -> Self {
        Self {
            bos: config.bos_token_id,
            pad: config.padding(),
            eos: config.eos_token_id.to_vec(),
            captions_end_with_newline: false,
            vocab_size: config.vocab_size,
        }
    }
}
