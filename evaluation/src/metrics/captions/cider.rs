//! CIDEr-D, which the caption toolkit calls CIDEr (Vedantam et al. 2015, `cider_scorer.py` of coco-caption).
//!
//! An n-gram of one to four words weighs `count · (ln N - ln max(1, df))` in a caption: of `N` images `df`
//! have it in a reference. With these weights `w`, norms over all of a caption's n-grams of a length, and `d`
//! the difference of the two captions' numbers of word pairs,
//! `sim_n(h, r) = exp(-d² / 2σ²) · Σ min(w_h, w_r) w_r / (‖w_h‖ ‖w_r‖)` over the generated caption's
//! n-grams, `σ = 6`. An image's value is ten times the mean over references of the mean over `n`. Of one
//! image alone all weights are zero, and so is CIDEr.

use super::ngrams::{self, NGram, ORDERS, Word};

/// How fast a difference in length counts against a caption.
const SIGMA: f64 = 6.0;

/// How many images have each n-gram in a reference: what weights are made of. Of the whole set that is
/// evaluated, whatever part of it is scored.
#[derive(Debug)]
pub struct DocumentFrequencies {
    images: usize,
    /// By length of n-grams, ascending.
    frequencies: [Vec<(NGram, u32)>; ORDERS],
}

impl DocumentFrequencies {
    /// Of the references of all images, in words of one vocabulary.
    pub fn of<'a>(images: impl IntoIterator<Item = &'a [Vec<Word>]> + Clone) -> Self {
        let of_order = |order: usize| {
            let mut all = Vec::new();
            for references in images.clone() {
                let runs = references.iter().flat_map(|reference| ngrams::counted(reference, order + 1));
                let mut there: Vec<NGram> = runs.map(|(ngram, _)| ngram).collect();
                there.sort_unstable();
                there.dedup();
                all.append(&mut there);
            }
            all.sort_unstable();
            all.chunk_by(|one, next| one == next).map(|same| (same[0], same.len() as u32)).collect()
        };
        Self { images: images.clone().into_iter().count(), frequencies: std::array::from_fn(of_order) }
    }

    /// CIDEr-D of one image, 0 to 10 (tables show it times 100), in words of the same vocabulary.
    pub fn cider(&self, hypothesis: &[Word], references: &[Vec<Word>]) -> f64 {
        let hypothesis = self.weighted(hypothesis);
        let sum: f64 = references.iter().map(|words| hypothesis.similarity(&self.weighted(words))).sum();
        10.0 * sum / references.len().max(1) as f64
    }

    fn weighted(&self, words: &[Word]) -> Weighted {
        let all = (self.images as f64).ln();
        let of_order = |order: usize| {
            let frequencies = &self.frequencies[order];
            let weight = |ngram: NGram, count: u32| {
                let frequency = ngrams::find(frequencies, ngram).unwrap_or(1);
                f64::from(count) * (all - f64::from(frequency).ln())
            };
            let counted = ngrams::counted(words, order + 1);
            counted.into_iter().map(|(ngram, count)| (ngram, weight(ngram, count))).collect()
        };
        Weighted { weights: std::array::from_fn(of_order), pairs: words.len().saturating_sub(1) }
    }
}

/// A caption's n-grams with their weights.
struct Weighted {
    /// By length of n-grams, ascending.
    weights: [Vec<(NGram, f64)>; ORDERS],
    /// Neighbouring words: what the toolkit takes for a caption's length.
    pairs: usize,
}

impl Weighted {
    /// The mean over lengths of n-grams of how much this caption is like a reference.
    fn similarity(&self, reference: &Weighted) -> f64 {
        let difference = self.pairs as f64 - reference.pairs as f64;
        let penalty = (-(difference * difference) / (2.0 * SIGMA * SIGMA)).exp();
        let of_order = |order: usize| {
            let (own, other) = (&self.weights[order], &reference.weights[order]);
            let shared = own.iter().filter_map(|(ngram, own)| Some((own, ngrams::find(other, *ngram)?)));
            let shared = shared.map(|(own, other)| own.min(other) * other);
            let norms = norm(own) * norm(other);
            let product: f64 = shared.sum();
            if norms == 0.0 { product } else { product / norms }
        };
        (0..ORDERS).map(of_order).sum::<f64>() * penalty / ORDERS as f64
    }
}

fn norm(weights: &[(NGram, f64)]) -> f64 {
    weights.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::ngrams::Vocabulary;
    use super::*;

    #[test]
    fn a_single_image_has_no_rare_words() {
        let references = vec![vec![1, 2], vec![3, 2]];
        let frequencies = DocumentFrequencies::of([references.as_slice()]);
        assert_eq!(frequencies.cider(&[1, 2], &references), 0.0);
    }

    #[test]
    fn values_of_three_images_are_those_of_the_toolkit() {
        let mut vocabulary = Vocabulary::default();
        let mut images = |captions: [[&'static str; 2]; 3]| {
            captions.map(|captions| captions.map(|caption| vocabulary.words(caption)).to_vec())
        };
        let references = images([
            ["a cat sits on a mat", "a cat on the mat"],
            ["two dogs run in the park", "dogs running in a park"],
            ["a man rides a horse", "a person riding a brown horse"],
        ]);
        let frequencies = DocumentFrequencies::of(references.iter().map(Vec::as_slice));
        let generated = ["a cat on a mat", "two dogs in a park", "a man riding a horse"];
        let expected = [4.514_647_3, 3.342_714_1, 2.445_720_3];
        for ((generated, references), expected) in generated.iter().zip(&references).zip(expected) {
            let value = frequencies.cider(&vocabulary.words(generated), references);
            assert!((value - expected).abs() < 1e-7, "{value} is not {expected}");
        }
    }
}
