//! The rules that change a row's scores before a token is chosen.

use std::collections::BTreeSet;

use super::options::GenerateOptions;
use blip2_model_files::error::ModelError;

/// Applies the repetition penalty, the ban on repeated n-grams and the minimum length, in this order.
pub(super) fn adjust(scores: &mut [f32], prompt: &[u32], generated: &[u32], options: &GenerateOptions) {
    if options.repetition_penalty != 1.0 {
        penalise_repetition(scores, prompt, generated, options.repetition_penalty);
    }
    if options.no_repeat_ngram > 0 {
        ban_repeated_ngrams(scores, prompt, generated, options.no_repeat_ngram);
    }
    if generated.len() < options.min_new_tokens {
        options.eos.iter().for_each(|token| scores[*token as usize] = f32::NEG_INFINITY);
    }
}

fn penalise_repetition(scores: &mut [f32], prompt: &[u32], generated: &[u32], penalty: f32) {
    let occurred: BTreeSet<u32> = prompt.iter().chain(generated).copied().collect();
    for token in occurred {
        if let Some(score) = scores.get_mut(token as usize) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

fn ban_repeated_ngrams(scores: &mut [f32], prompt: &[u32], generated: &[u32], size: usize) {
    let text: Vec<u32> = prompt.iter().chain(generated).copied().collect();
    if text.len() < size {
        return;
    }
    let tail = &text[text.len() + 1 - size..];
    for ngram in text.windows(size).filter(|ngram| ngram.starts_with(tail)) {
        if let Some(score) = scores.get_mut(ngram[size - 1] as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// Turns scores into logarithms of probabilities.
pub(super) fn log_softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|score| f64::from(score - max).exp()).sum();
    let log_sum = sum.ln() as f32;
    scores.iter_mut().for_each(|score| *score = *score - max - log_sum);
}

/// Refuses scores that cannot be compared: only a token that is forbidden scores infinitely low.
pub(super) fn check(scores: &[f32]) -> Result<(), ModelError> {
    let is_odd = |score: &f32| score.is_nan() || *score == f32::INFINITY;
    match scores.iter().position(is_odd) {
        Some(token) => {
            let score = scores[token];
            let reason = format!("that of token {token} is {score}, not a number: are the weights damaged?");
            Err(ModelError::input("scores of the next token", reason))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_tokens_lose_in_both_signs_once() {
        let mut scores = [2.0, -2.0, 3.0, -3.0];
        let options = GenerateOptions { repetition_penalty: 2.0, ..Default::default() };
        adjust(&mut scores, &[0, 0, 9], &[1], &options);
        assert_eq!(scores, [1.0, -4.0, 3.0, -3.0]);
    }

    #[test]
    fn an_ngram_does_not_occur_twice() {
        let mut scores = [0.0; 6];
        let options = GenerateOptions { no_repeat_ngram: 3, ..Default::default() };
        adjust(&mut scores, &[1, 2, 3, 1], &[2], &options);
        let banned: Vec<usize> = (0..6).filter(|i| scores[*i] == f32::NEG_INFINITY).collect();
        assert_eq!(banned, [3]);
        let mut scores = [0.0; 6];
        adjust(&mut scores, &[4, 5], &[4], &GenerateOptions { no_repeat_ngram: 1, ..Default::default() });
        let banned: Vec<usize> = (0..6).filter(|i| scores[*i] == f32::NEG_INFINITY).collect();
        assert_eq!(banned, [4, 5]);
    }

    #[test]
    fn the_end_waits_for_the_minimum() {
        let options = GenerateOptions { min_new_tokens: 2, eos: vec![1], ..Default::default() };
        let mut scores = [0.0; 2];
        adjust(&mut scores, &[], &[0], &options);
        assert_eq!(scores[1], f32::NEG_INFINITY);
        let mut scores = [0.0; 2];
        adjust(&mut scores, &[], &[0, 0], &options);
        assert_eq!(scores[1], 0.0);
    }

    #[test]
    fn probabilities_sum_to_one() {
        let mut scores = [1000.0, 1001.0, f32::NEG_INFINITY];
        log_softmax(&mut scores);
        let sum: f32 = scores.iter().map(|score| score.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6 && scores[2] == f32::NEG_INFINITY);
    }
}
