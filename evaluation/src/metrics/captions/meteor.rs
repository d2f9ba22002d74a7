//! METEOR 1.5's score from what its program counts (Denkowski and Lavie 2014), with the weights of `-l en`.
//!
//! `P = Σ w (δ c_h + (1 - δ) f_h) / (δ (|h| - F_h) + (1 - δ) F_h)` over the four kinds of matches, with
//! content and function words that match and `F` function words at all; `R` likewise;
//! `F = P R / (α P + (1 - α) R)`; the score is `F (1 - γ (chunks / matched words)^β)`, where matched words
//! are the mean of both sides. An image whose captions match as a whole, in one chunk, counts as no chunk, in
//! sums too. A set's score is the formula on statistics that are added over images, not the mean of scores.
//! How words are matched is the program's alone: tables of stems, synonyms and paraphrases lie in the user's
//! own copy.

use std::iter::Sum;
use std::ops::AddAssign;

const ALPHA: f64 = 0.85;
const BETA: f64 = 0.2;
const GAMMA: f64 = 0.6;
const DELTA: f64 = 0.75;
/// Of exact, stem, synonym and paraphrase matches.
const WEIGHTS: [f64; 4] = [1.0, 0.6, 0.8, 0.6];
/// How many numbers the program prints for a caption.
pub const STATISTICS: usize = 23;
/// Where among them the chunks are.
const CHUNKS: usize = 20;

/// The program's counts of one image with its best reference, or added over several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeteorStatistics([f64; STATISTICS]);

impl Default for MeteorStatistics {
    fn default() -> Self {
        Self([0.0; STATISTICS])
    }
}

impl MeteorStatistics {
    /// Of a line that the program prints: words of the generated caption and of the reference, function words
    /// of both, for each kind of match content words of both and function words of both, chunks, and words
    /// matched of both. `None` if the line is something else.
    pub fn parse(line: &str) -> Option<Self> {
        let numbers: Option<Vec<f64>> = line.split_whitespace().map(|number| number.parse().ok()).collect();
        let mut numbers: [f64; STATISTICS] = numbers?.try_into().ok()?;
        let [words_h, words_r, .., chunks, matched_h, matched_r] = numbers;
        if matched_h == words_h && matched_r == words_r && chunks == 1.0 {
            numbers[CHUNKS] = 0.0;
        }
        numbers.iter().all(|number| number.is_finite() && *number >= 0.0).then_some(Self(numbers))
    }

    /// METEOR, from 0 to 1.
    pub fn score(&self) -> f64 {
        let [words_h, words_r, function_h, function_r] = [self.0[0], self.0[1], self.0[2], self.0[3]];
        let [chunks, matched_h, matched_r] = [self.0[CHUNKS], self.0[21], self.0[22]];
        let (mut weighted_h, mut weighted_r) = (0.0, 0.0);
        for (weight, counts) in WEIGHTS.iter().zip(self.0[4..20].chunks_exact(4)) {
            weighted_h += weight * (DELTA * counts[0] + (1.0 - DELTA) * counts[2]);
            weighted_r += weight * (DELTA * counts[1] + (1.0 - DELTA) * counts[3]);
        }
        let share = |weighted: f64, words: f64, function: f64| {
            let all = DELTA * (words - function) + (1.0 - DELTA) * function;
            if all == 0.0 { 0.0 } else { weighted / all }
        };
        let precision = share(weighted_h, words_h, function_h);
        let recall = share(weighted_r, words_r, function_r);
        let mean = ALPHA * precision + (1.0 - ALPHA) * recall;
        let matched = (matched_h + matched_r) / 2.0;
        if mean == 0.0 || matched == 0.0 {
            return 0.0;
        }
        precision * recall / mean * (1.0 - GAMMA * (chunks / matched).powf(BETA))
    }
}

impl AddAssign for MeteorStatistics {
    fn add_assign(&mut self, other: Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own += other;
        }
    }
}

impl Sum for MeteorStatistics {
    fn sum<I: Iterator<Item = Self>>(statistics: I) -> Self {
        statistics.fold(Self::default(), |mut sum, statistics| {
            sum += statistics;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_something_else_is_no_statistics() {
        assert_eq!(MeteorStatistics::parse("1.0 2.0"), None);
        assert_eq!(MeteorStatistics::parse(&"nan ".repeat(STATISTICS)), None);
        assert_eq!(MeteorStatistics::parse("Error: specify SCORE or EVAL or exit"), None);
        assert!(MeteorStatistics::parse(&"0.0 ".repeat(STATISTICS)).is_some());
    }

    #[test]
    fn nothing_matched_is_zero() {
        assert_eq!(MeteorStatistics::default().score(), 0.0);
    }
}
