//! The special tokens of the families.

use blip2_model_files::error::ModelError;

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
    /// What starts every text of a family whose tokenizer does not put it there.
    pub start: Option<u32>,
    /// Whether a caption ends with a line feed, as published for OPT, and not with the model's end token.
    pub captions_end_with_newline: bool,
    /// Number of tokens.
    pub vocab_size: usize,
}

impl SpecialTokens {
    /// Requires that the token table has a row for each of `tokens`, which go with what `config.json` calls
    /// them.
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
