//! One token at a time for each text: the best one, or one that is drawn.

use rayon::prelude::*;

use super::decoder::{Decoder, FORBIDDEN, row};
use super::options::{GenerateOptions, Stop};
use super::sampling::draw;
use super::scores::{adjust, check};
use blip2_model_files::error::ModelError;

/// Rows whose text ended leave the batch.
pub(super) fn search(
    decoder: &mut impl Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    stop: Stop<'_>,
) -> Result<Vec<Vec<u32>>, ModelError> {
    let vocabulary = decoder.vocabulary();
    let mut texts = vec![Vec::new(); prompts.len()];
    let mut running: Vec<usize> = (0..prompts.len()).collect();
    let mut logits = decoder.start()?;
    loop {
        let (mut parents, mut tokens, mut next) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(last) = running.len().checked_sub(1) {
            row(&mut logits, last, vocabulary)?;
        }
        let chosen: Result<Vec<u32>, ModelError> = logits
            .par_chunks_mut(vocabulary)
            .zip(&running)
            .map(|(scores, &text)| choose(scores, &prompts[text], text, &texts[text], options))
            .collect();
        for (index, (&text, token)) in running.iter().zip(chosen?).enumerate() {
            texts[text].push(token);
            let ended = options.ends(token) || texts[text].len() == options.max_new_tokens;
            if !ended && !stop(&texts[text]) {
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

/// The token after those of `written`, which are of text number `text`.
fn choose(
    scores: &mut [f32],
    prompt: &[u32],
    text: usize,
    written: &[u32],
    options: &GenerateOptions,
) -> Result<u32, ModelError> {
    check(scores)?;
    adjust(scores, prompt, written, options);
    let token = match &options.sampling {
        Some(sampling) => draw(scores, sampling, text, written.len()),
        None => best(scores),
    };
    token.ok_or_else(|| ModelError::input("generation options", FORBIDDEN))
}

/// The first of the highest scores; `None` where all are forbidden.
fn best(scores: &[f32]) -> Option<u32> {
    let mut best = None;
    let mut highest = f32::NEG_INFINITY;
    for (token, score) in scores.iter().enumerate() {
        if *score > highest {
            (best, highest) = (Some(token as u32), *score);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::Sampling;
    use super::super::tests::Chain;
    use super::*;

    const TABLE: [&[f32]; 4] =
        [&[0.1, 0.4, 0.4, 0.1], &[0.1, 0.1, 0.1, 0.7], &[0.9, 0.0, 0.1, 0.0], &[0.25; 4]];

    fn run(prompts: &[Vec<u32>], options: &GenerateOptions, stop: Stop<'_>) -> Vec<Vec<u32>> {
        search(&mut Chain::new(&TABLE, prompts), prompts, options, stop).unwrap()
    }

    #[test]
    fn texts_end_on_their_own_and_the_first_of_equals_wins() {
        let options = GenerateOptions { max_new_tokens: 3, eos: vec![3], ..Default::default() };
        assert_eq!(run(&[vec![0], vec![2]], &options, &|_| false), [vec![1, 3], vec![0, 1, 3]]);
    }

    #[test]
    fn a_text_ends_where_the_rule_says() {
        let options = GenerateOptions { max_new_tokens: 9, ..Default::default() };
        let texts = run(&[vec![2], vec![0]], &options, &|tokens| tokens.ends_with(&[0, 1]));
        assert_eq!(texts[0], [0, 1]);
        assert_eq!(texts[1], [1, 3, 0, 1]);
    }

    #[test]
    fn a_drawn_text_does_not_depend_on_the_others() {
        let sampling = |numbers| Some(Sampling { numbers, seed: 9, ..Sampling::default() });
        let options =
            GenerateOptions { max_new_tokens: 20, sampling: sampling(vec![]), ..Default::default() };
        let prompts = vec![vec![0]; 3];
        let together = run(&prompts, &options, &|_| false);
        assert_ne!(together[0], together[1]);
        let alone = GenerateOptions { sampling: sampling(vec![2, 0]), ..options };
        let (first, third) = (together[0].clone(), together[2].clone());
        assert_eq!(run(&prompts[..2], &alone, &|_| false), [third, first]);
    }
}
