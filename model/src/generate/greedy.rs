//! The best token at every step.

use super::scores::{adjust, check};
use super::{Decoder, FORBIDDEN, GenerateOptions, row};
use crate::ModelError;

/// Rows whose text ended leave the batch.
pub(super) fn search(
    decoder: &mut impl Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Vec<u32>>, ModelError> {
    let vocabulary = decoder.vocabulary();
    let mut texts = vec![Vec::new(); prompts.len()];
    let mut running: Vec<usize> = (0..prompts.len()).collect();
    let mut logits = decoder.start()?;
    loop {
        let (mut parents, mut tokens, mut next) = (Vec::new(), Vec::new(), Vec::new());
        for (index, &text) in running.iter().enumerate() {
            let scores = row(&mut logits, index, vocabulary)?;
            check(scores)?;
            adjust(scores, &prompts[text], &texts[text], options);
            let token = best(scores)?;
            texts[text].push(token);
            if !options.ends(token) && texts[text].len() < options.max_new_tokens {
                parents.push(index);
                tokens.push(token);
                next.push(text);
            }
        }
        if next.is_empty() {
            return Ok(texts);
        }
        logits = decoder.advance(&parents, &tokens)?;
        running = next;
    }
}

/// The first of the highest scores.
fn best(scores: &[f32]) -> Result<u32, ModelError> {
    let mut best = None;
    let mut highest = f32::NEG_INFINITY;
    for (token, score) in scores.iter().enumerate() {
        if *score > highest {
            (best, highest) = (Some(token as u32), *score);
        }
    }
    best.ok_or_else(|| ModelError::input("generation options", FORBIDDEN))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Chain;
    use super::*;

    #[test]
    fn texts_end_on_their_own_and_the_first_of_equals_wins() {
        let table: [&[f32]; 4] =
            [&[0.1, 0.4, 0.4, 0.1], &[0.1, 0.1, 0.1, 0.7], &[0.9, 0.0, 0.1, 0.0], &[0.25; 4]];
        let prompts = vec![vec![0], vec![2]];
        let options = GenerateOptions { max_new_tokens: 3, eos: vec![3], ..Default::default() };
        let texts = search(&mut Chain::new(&table, &prompts), &prompts, &options).unwrap();
        assert_eq!(texts, [vec![1, 3], vec![0, 1, 3]]);
    }
}
