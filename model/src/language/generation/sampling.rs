//! Drawing the next token: temperature, top-k and nucleus in this order, as `transformers` warps scores, then
//! one draw that is a function of seed, text and position.

use std::cmp::Ordering;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::options::Sampling;
use super::scores::log_softmax;

/// Least likely tokens that are sorted at first.
const FIRST_SORTED: usize = 256;

/// A number in `[0, 1)`.
fn uniform(sampling: &Sampling, row: usize, position: usize) -> f64 {
    let mut generator = ChaCha8Rng::seed_from_u64(sampling.seed);
    generator.set_stream(sampling.numbers.get(row).copied().unwrap_or(row as u64));
    // Two words a draw.
    generator.set_word_pos(2 * position as u128);
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// The token at `position` of text `row`; `None` where all are forbidden.
pub(super) fn draw(scores: &mut [f32], sampling: &Sampling, row: usize, position: usize) -> Option<u32> {
    scores.iter_mut().for_each(|score| *score /= sampling.temperature);
    if sampling.top_k > 0 && sampling.top_k < scores.len() {
        keep_top_k(scores, sampling.top_k);
    }
    if scores.iter().all(|score| *score == f32::NEG_INFINITY) {
        return None;
    }
    log_softmax(scores);
    let mut weights: Vec<(u32, f64)> = (0u32..)
        .zip(scores.iter())
        .filter(|(_, score)| **score > f32::NEG_INFINITY)
        .map(|(token, score)| (token, f64::from(*score).exp()))
        .collect();
    if sampling.top_p < 1.0 {
        keep_nucleus(&mut weights, sampling.top_p);
    }
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut below = uniform(sampling, row, position) * total;
    for (token, weight) in &weights {
        below -= weight;
        if below < 0.0 {
            return Some(*token);
        }
    }
    weights.last().map(|(token, _)| *token)
}

/// Forbids what scores below the `count`-th best; equals of it stay.
fn keep_top_k(scores: &mut [f32], count: usize) {
    let mut sorted = scores.to_vec();
    let (_, least, _) = sorted.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    let least = *least;
    scores.iter_mut().filter(|score| **score < least).for_each(|score| *score = f32::NEG_INFINITY);
}

/// Removes the least likely tokens as long as they have at most `1 - share` together; one stays. Order of
/// tokens.
fn keep_nucleus(weights: &mut Vec<(u32, f64)>, share: f64) {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    // Together these have less than `1 - share`, however many they are: they need no order. One stays.
    let largest = weights.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
    let small = ((1.0 - share) * total / weights.len() as f64).min(largest);
    weights.retain(|(_, weight)| {
        let kept = *weight >= small;
        below += if kept { 0.0 } else { weight / total };
        kept
    });
    let mut ordered = weights.clone();
    let mut removable = LeastLikely { weights: &mut ordered, sorted: 0 };
    for index in 0..weights.len() {
        let least = removable.get(index);
        below += least.1 / total;
        if below > 1.0 - share || index + 1 == weights.len() {
            weights.retain(|other| likelier(other, &least).is_ge());
            return;
        }
    }
}

/// Least likely first; of equals the later token.
fn likelier(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))
}

/// Tokens from the least likely on; only as many are sorted as are asked for.
struct LeastLikely<'a> {
    weights: &'a mut [(u32, f64)],
    /// So many are in their places, and no other belongs before them.
    sorted: usize,
}

impl LeastLikely<'_> {
    /// The token that is at `index` from the least likely; asked for one after the other.
    fn get(&mut self, index: usize) -> (u32, f64) {
        if index == self.sorted {
            let rest = &mut self.weights[index..];
            let count = (2 * index).max(FIRST_SORTED).min(rest.len());
            if count < rest.len() {
                rest.select_nth_unstable_by(count, likelier);
            }
            rest[..count].sort_unstable_by(likelier);
            self.sorted += count;
        }
        self.weights[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: &Sampling, probabilities: &[f32]) -> Vec<f64> {
        const DRAWS: usize = 20_000;
        let mut counts = vec![0.0; probabilities.len()];
        for position in 0..DRAWS {
            let mut scores: Vec<f32> = probabilities.iter().map(|p| p.ln() + 3.0).collect();
            counts[draw(&mut scores, sampling, 0, position).unwrap() as usize] += 1.0 / DRAWS as f64;
        }
        counts
    }

    fn close(got: &[f64], want: &[f64]) {
        // Four standard deviations of a share of a half.
        let fits = got
            .iter()
            .zip(want)
            .all(|(got, want)| (got - want).abs() < 0.015 && (*want > 0.0 || *got == 0.0));
        assert!(fits, "{got:?} {want:?}");
    }

    #[test]
    fn draws_have_the_probabilities_that_the_rules_leave() {
        let probabilities = [0.1, 0.4, 0.2, 0.3];
        let plain = Sampling { seed: 4, ..Sampling::default() };
        close(&shares(&plain, &probabilities), &[0.1, 0.4, 0.2, 0.3]);
        close(
            &shares(&Sampling { top_k: 2, ..plain.clone() }, &probabilities),
            &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0],
        );
        // The least likely 0.1 is within 1 - 0.85; 0.1 and 0.2 are not.
        close(
            &shares(&Sampling { top_p: 0.85, ..plain.clone() }, &probabilities),
            &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0],
        );
        close(&shares(&Sampling { top_p: 1e-9, ..plain.clone() }, &probabilities), &[0.0, 1.0, 0.0, 0.0]);
        let squares = [0.01, 0.16, 0.04, 0.09].map(|square| square / 0.3);
        close(&shares(&Sampling { temperature: 0.5, ..plain }, &probabilities), &squares);
    }

    /// What is sorted a part at a time is what is sorted at once, to the last bit of the sums.
    #[test]
    fn the_nucleus_is_that_of_all_tokens_in_order() {
        let at_once = |mut weights: Vec<(u32, f64)>, share: f64| {
            let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
            let largest = weights.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
            let small = ((1.0 - share) * total / weights.len() as f64).min(largest);
            let mut below = 0.0;
            for (_, weight) in weights.iter().filter(|(_, weight)| *weight < small) {
                below += weight / total;
            }
            weights.retain(|(_, weight)| *weight >= small);
            weights.sort_by(likelier);
            while weights.len() > 1 {
                below += weights[0].1 / total;
                if below > 1.0 - share {
                    break;
                }
                weights.remove(0);
            }
            weights.sort_by_key(|(token, _)| *token);
            weights
        };
        // Flat, with many equals, and steep.
        let hash = |token: u32| token.wrapping_mul(2_654_435_761) >> 8;
        let flat = (0..3000).map(|token| (token, 1.0 + f64::from(hash(token) % 64) / 64.0)).collect();
        let steep = (0..3000).map(|token| (token, (-f64::from(hash(token) % 977) / 50.0).exp())).collect();
        let cases: [Vec<(u32, f64)>; 4] = [flat, steep, vec![(7, 0.5)], vec![(1, 0.25), (2, 0.25), (5, 0.5)]];
        for weights in cases {
            for share in [0.05, 0.5, 0.9, 0.999] {
                let mut got = weights.clone();
                keep_nucleus(&mut got, share);
                assert_eq!(got, at_once(weights.clone(), share), "{} of {share}", weights.len());
            }
        }
    }

    #[test]
    fn equals_of_the_last_stay_and_forbidden_tokens_are_never_drawn() {
        let mut scores = [1.0, 2.0, 1.0, 0.0];
        keep_top_k(&mut scores, 2);
        assert_eq!(scores, [1.0, 2.0, 1.0, f32::NEG_INFINITY]);
        assert_eq!(draw(&mut [f32::NEG_INFINITY; 3], &Sampling::default(), 0, 0), None);
        let mut scores = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        assert_eq!(draw(&mut scores, &Sampling::default(), 0, 0), Some(1));
    }

    #[test]
    fn seed_text_and_position_choose_the_draw() {
        let base = Sampling { seed: 1, ..Sampling::default() };
        let draws = [uniform(&base, 0, 0), uniform(&base, 1, 0), uniform(&base, 0, 1)];
        let other = uniform(&Sampling { seed: 2, ..base.clone() }, 0, 0);
        assert!(draws[0] != draws[1] && draws[0] != draws[2] && draws[1] != draws[2] && draws[0] != other);
        assert_eq!(uniform(&Sampling { numbers: vec![7, 1], ..base }, 1, 0), draws[1]);
    }
}
