//! Text from a model that scores next tokens: greedy and beam search and sampling, with the rules of
//! `transformers`' `generate`.

mod beam;
mod sampling;
mod scores;
mod sequential;

pub use sampling::Sampling;

use crate::error::ModelError;

/// When a full beam of finished hypotheses ends the search of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// Once the best running one, at its present length, is no better than the worst of them (`False`).
    #[default]
    Heuristic,
    /// At once (`True`).
    WhenFull,
    /// Once the best running one can become no better at any length (`"never"`).
    Never,
}

/// Whether a text ends with these new tokens, besides end tokens and the limit.
pub type Stop<'a> = &'a dyn Fn(&[u32]) -> bool;

/// How to search.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Longest continuation in tokens; the prompt does not count.
    pub max_new_tokens: usize,
    /// No end token before this many tokens.
    pub min_new_tokens: usize,
    /// Hypotheses followed at a time; 1 is greedy search.
    pub beams: usize,
    /// A finished hypothesis scores `Σ log p / tokens^length_penalty`: 0 ignores the length, negative
    /// values prefer short texts.
    pub length_penalty: f64,
    /// Divides positive and multiplies negative scores of tokens that occurred, in the prompt too; 1 is off.
    pub repetition_penalty: f32,
    /// When a beam search is over.
    pub early_stopping: EarlyStopping,
    /// Draws tokens instead of taking the best; without beams.
    pub sampling: Option<Sampling>,
    /// No sequence of this many tokens occurs twice; 0 is off.
    pub no_repeat_ngram: usize,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 30,
            min_new_tokens: 0,
            beams: 1,
            length_penalty: 1.0,
            repetition_penalty: 1.0,
            early_stopping: EarlyStopping::default(),
            sampling: None,
            no_repeat_ngram: 0,
            eos: Vec::new(),
        }
    }
}

impl GenerateOptions {
    fn ends(&self, token: u32) -> bool {
        self.eos.contains(&token)
    }

    fn validate(&self, texts: usize, vocabulary: usize) -> Result<(), ModelError> {
        let refuse = |reason: String| Err(ModelError::input("generation options", reason));
        if self.max_new_tokens == 0 || self.beams == 0 {
            return refuse("max_new_tokens and beams start at 1".into());
        }
        if self.min_new_tokens > self.max_new_tokens {
            let (min, max) = (self.min_new_tokens, self.max_new_tokens);
            return refuse(format!("min_new_tokens {min} is more than max_new_tokens {max}"));
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return refuse(format!("repetition_penalty {} is not above 0", self.repetition_penalty));
        }
        if let Some(sampling) = &self.sampling {
            if self.beams > 1 {
                return refuse(format!("sampling goes with one beam, not with {}", self.beams));
            }
            if let Some(complaint) = sampling.complaint(texts) {
                return refuse(complaint);
            }
        }
        if !self.length_penalty.is_finite() {
            return refuse(format!("length_penalty {} is not finite", self.length_penalty));
        }
        if let Some(token) = self.eos.iter().find(|token| **token as usize >= vocabulary) {
            return refuse(format!("end token {token} is not in the vocabulary of {vocabulary}"));
        }
        Ok(())
    }
}

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

/// Continues the prompts of `decoder`; each text has its end token, if it reached one, as its last token.
///
/// `prompts` are the token ids that the repetition rules see, one list for each of the decoder's rows.
/// Equal scores are resolved towards the better hypothesis and then the smaller token id.
///
/// # Errors
/// Options that contradict each other, or scores that are not numbers.
pub fn generate(
    decoder: &mut impl Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Vec<u32>>, ModelError> {
    generate_until(decoder, prompts, options, &|_| false)
}

/// [`generate`], where a text also ends with the first token after which `stop` holds for its new tokens.
///
/// # Errors
/// As of [`generate`].
pub fn generate_until(
    decoder: &mut impl Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    stop: Stop<'_>,
) -> Result<Vec<Vec<u32>>, ModelError> {
    options.validate(prompts.len(), decoder.vocabulary())?;
    match options.beams {
        1 => sequential::search(decoder, prompts, options, stop),
        _ => beam::search(decoder, prompts, options, stop),
    }
}

/// Why a search cannot go on.
const FORBIDDEN: &str = "the rules forbid every token: allow a shorter text or more repetition";

/// The scores of one row.
fn row(scores: &mut [f32], row: usize, vocabulary: usize) -> Result<&mut [f32], ModelError> {
    let (start, held) = (row * vocabulary, scores.len());
    scores
        .get_mut(start..start + vocabulary)
        .ok_or_else(|| ModelError::input("scores", format!("{held} values, row {row} starts at {start}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores depend on the last token alone, by a table of probabilities.
    pub(super) struct Chain {
        pub(super) table: Vec<Vec<f32>>,
        pub(super) last: Vec<usize>,
    }

    impl Chain {
        pub(super) fn new(table: &[&[f32]], prompts: &[Vec<u32>]) -> Self {
            Self {
                table: table.iter().map(|row| row.to_vec()).collect(),
                last: prompts.iter().map(|prompt| *prompt.last().unwrap() as usize).collect(),
            }
        }
    }

    impl Decoder for Chain {
        fn vocabulary(&self) -> usize {
            self.table.len()
        }

        fn start(&mut self) -> Result<Vec<f32>, ModelError> {
            let logits = |last: &usize| self.table[*last].iter().map(|p| p.ln()).collect::<Vec<_>>();
            Ok(self.last.iter().flat_map(logits).collect())
        }

        fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
            assert!(parents.iter().all(|parent| *parent < self.last.len()));
            self.last = tokens.iter().map(|token| *token as usize).collect();
            self.start()
        }
    }

    fn sampled(beams: usize, sampling: Sampling) -> GenerateOptions {
        GenerateOptions { beams, sampling: Some(sampling), ..Default::default() }
    }

    #[test]
    fn contradictory_options_are_refused() {
        let prompts = vec![vec![0]];
        for (options, word) in [
            (GenerateOptions { beams: 0, ..Default::default() }, "beams"),
            (GenerateOptions { min_new_tokens: 31, ..Default::default() }, "min_new_tokens 31"),
            (GenerateOptions { repetition_penalty: 0.0, ..Default::default() }, "repetition_penalty"),
            (GenerateOptions { eos: vec![2], ..Default::default() }, "end token 2"),
            (sampled(2, Sampling::default()), "one beam"),
            (sampled(1, Sampling { temperature: 0.0, ..Default::default() }), "temperature 0"),
            (sampled(1, Sampling { top_p: 1.5, ..Default::default() }), "top_p 1.5"),
            (sampled(1, Sampling { numbers: vec![1, 2], ..Default::default() }), "2 numbers"),
        ] {
            let mut chain = Chain::new(&[&[0.5, 0.5], &[0.5, 0.5]], &prompts);
            let error = generate(&mut chain, &prompts, &options).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn scores_that_are_no_numbers_are_an_error() {
        let prompts = vec![vec![0]];
        for (beams, odd) in [(1, f32::NAN), (2, f32::NAN), (1, f32::INFINITY), (2, f32::INFINITY)] {
            let mut chain = Chain::new(&[&[odd, 0.5], &[0.5, 0.5]], &prompts);
            let options = GenerateOptions { beams, ..Default::default() };
            let error = generate(&mut chain, &prompts, &options).unwrap_err().to_string();
            assert!(error.contains("not a number"), "{error}");
        }
    }
}
