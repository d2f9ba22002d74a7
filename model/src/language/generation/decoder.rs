//! What is searched: a model that scores next tokens.

use blip2_model_files::error::ModelError;

/// A model that reads a batch of texts token by token.
pub trait Decoder {
    /// Number of tokens it can write.
    fn vocabulary(&self) -> usize;

    /// Reads the prompts; returns the scores of every next token, row by row.
    fn start(&mut self) -> Result<Vec<f32>, ModelError>;

    /// Makes row `i` what row `parents[i]` was, followed by `tokens[i]`; returns the scores of every next
    /// token, row by row.
    fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError>;
}

/// Why a search cannot go on.
pub(super) const FORBIDDEN: &str = "the rules forbid every token: allow a shorter text or more repetition";

/// The scores of one row.
pub(super) fn row(scores: &mut [f32], row: usize, vocabulary: usize) -> Result<&mut [f32], ModelError> {
    let (start, held) = (row * vocabulary, scores.len());
    scores
        .get_mut(start..start + vocabulary)
        .ok_or_else(|| ModelError::input("scores", format!("{held} values, row {row} starts at {start}")))
}
