//! How to search, and what a search may be told.

use blip2_model_files::error::ModelError;

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

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the scores: below 1 likely tokens become likelier.
    pub temperature: f32,
    /// Only this many of the likeliest tokens are drawn from; 0 is all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability are drawn from; 1 is all (Holtzman et
    /// al., arXiv 1904.09751).
    pub top_p: f64,
    /// Chooses the draws.
    pub seed: u64,
    /// The number under which each text of a call draws: a text that has the same number, seed and prompt in
    /// another call is the same text. Empty: 0, 1, 2 and so on.
    pub numbers: Vec<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0, numbers: Vec::new() }
    }
}

impl Sampling {
    /// What is wrong with the values for so many texts.
    fn complaint(&self, texts: usize) -> Option<String> {
        if !self.numbers.is_empty() && self.numbers.len() != texts {
            return Some(format!("{} numbers for the draws of {texts} texts", self.numbers.len()));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Some(format!(
                "temperature {} is not above 0; greedy search draws nothing",
                self.temperature
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Some(format!("top_p {} is not above 0 and at most 1", self.top_p));
        }
        None
    }
}

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
    /// Tokens that count as a hypothesis' besides its own: older `transformers` counted the prompt of a
    /// decoder-only model.
    pub length_offset: usize,
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
            length_offset: 0,
            repetition_penalty: 1.0,
            early_stopping: EarlyStopping::default(),
            sampling: None,
            no_repeat_ngram: 0,
            eos: Vec::new(),
        }
    }
}

impl GenerateOptions {
    /// What the score of a hypothesis of so many tokens is divided by.
    pub(super) fn divisor(&self, tokens: usize) -> f32 {
        ((tokens + self.length_offset) as f64).powf(self.length_penalty) as f32
    }

    pub(super) fn ends(&self, token: u32) -> bool {
        self.eos.contains(&token)
    }

    pub(super) fn validate(&self, texts: usize, vocabulary: usize) -> Result<(), ModelError> {
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
