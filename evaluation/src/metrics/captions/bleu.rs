//! BLEU-1 to BLEU-4 as the caption toolkit has them (Papineni et al. 2002, `bleu_scorer.py` of coco-caption):
//! counts that are added over images, then one formula.
//!
//! `BLEU_n = BP · Π_{k ≤ n} ((c_k + 1e-15) / (g_k + 1e-9))^{1/n}`, where of `g_k` n-grams of the generated
//! captions `c_k` are found in references, each at most as often as in the reference that has it most often.
//! With `ρ = (generated words + 1e-15) / (reference words + 1e-9)` the brevity penalty is `exp(1 - 1/ρ)` for
//! `ρ < 1`, else 1; of an image's references that of the closest length counts, of two the shorter.

use std::iter::Sum;
use std::ops::AddAssign;

use super::ngrams::{self, ORDERS, Word};

/// Keeps a share of nothing from being no number.
const TINY: f64 = 1e-15;
/// Keeps a divisor from being zero.
const SMALL: f64 = 1e-9;

/// What BLEU is made of: of one image, or added over several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuCounts {
    /// N-grams of one to four words that a reference has too.
    pub matches: [u64; ORDERS],
    /// N-grams of one to four words.
    pub guesses: [u64; ORDERS],
    /// Words of the generated caption.
    pub hypothesis_words: u64,
    /// Words of the reference whose length is closest.
    pub reference_words: u64,
}

impl BleuCounts {
    /// Of a caption and its references, in words of one vocabulary.
    pub fn of(hypothesis: &[Word], references: &[Vec<Word>]) -> Self {
        let distance = |length: &usize| (length.abs_diff(hypothesis.len()), *length);
        Self {
            matches: std::array::from_fn(|order| matches(hypothesis, references, order + 1)),
            guesses: std::array::from_fn(|order| hypothesis.len().saturating_sub(order) as u64),
            hypothesis_words: hypothesis.len() as u64,
            reference_words: references.iter().map(Vec::len).min_by_key(distance).unwrap_or(0) as u64,
        }
    }

    /// BLEU-1 to BLEU-4, each from 0 to 1.
    pub fn bleu(&self) -> [f64; ORDERS] {
        let ratio = (self.hypothesis_words as f64 + TINY) / (self.reference_words as f64 + SMALL);
        let penalty = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
        let mut product = 1.0;
        std::array::from_fn(|order| {
            product *= (self.matches[order] as f64 + TINY) / (self.guesses[order] as f64 + SMALL);
            product.powf(1.0 / (order + 1) as f64) * penalty
        })
    }
}

/// Runs of so many words that a reference has too, each at most as often as one of the references has it.
fn matches(hypothesis: &[Word], references: &[Vec<Word>], length: usize) -> u64 {
    let references: Vec<_> = references.iter().map(|reference| ngrams::counted(reference, length)).collect();
    let most = |ngram| references.iter().filter_map(|list| ngrams::find(list, ngram)).max().unwrap_or(0);
    let own = ngrams::counted(hypothesis, length);
    own.into_iter().map(|(ngram, count)| u64::from(count.min(most(ngram)))).sum()
}

impl AddAssign for BleuCounts {
    fn add_assign(&mut self, other: Self) {
        for order in 0..ORDERS {
            self.matches[order] += other.matches[order];
            self.guesses[order] += other.guesses[order];
        }
        self.hypothesis_words += other.hypothesis_words;
        self.reference_words += other.reference_words;
    }
}

impl Sum for BleuCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ngrams::Vocabulary;
    use super::*;

    fn counts(hypothesis: &str, references: &[&str]) -> BleuCounts {
        let mut vocabulary = Vocabulary::default();
        let references: Vec<_> = references.iter().map(|line| vocabulary.words(line)).collect();
        BleuCounts::of(&vocabulary.words(hypothesis), &references)
    }

    #[test]
    fn an_ngram_counts_as_often_as_one_reference_has_it() {
        let counts = counts("the the the the", &["the cat", "the the cat"]);
        assert_eq!(counts.matches, [2, 1, 0, 0]);
        assert_eq!(counts.guesses, [4, 3, 2, 1]);
    }

    #[test]
    fn of_two_lengths_that_are_as_close_the_shorter_counts() {
        let counts = counts("a b c d", &["a b c d e f", "a b", "x"]);
        assert_eq!((counts.hypothesis_words, counts.reference_words), (4, 2));
    }

    #[test]
    fn no_word_at_all_is_zero() {
        assert_eq!(counts("", &["a cat"]).bleu(), [0.0; ORDERS]);
    }
}
