//! Retrieval in two passes: all pairs by their cosines, then the best few of each image and of each text by
//! the matching head.
//!
//! A pair that is among an image's best texts and among its text's best images is scored once. Pairs are kept
//! by image, so that an image is encoded once for all of its texts.

use std::collections::BTreeSet;

use crate::similarity_files::matrix::{Matrix, SimilarityFile};

/// The score of a pair that was not scored anew.
pub const UNSCORED: f32 = -100.0;

/// Which pairs are scored anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Of each image its best texts.
    texts_of_image: Vec<BTreeSet<usize>>,
    /// Of each text its best images.
    images_of_text: Vec<BTreeSet<usize>>,
    /// Of each image the texts it is scored with, in order.
    scored: Vec<Vec<usize>>,
}

impl Candidates {
    /// The best `most` of each row and of each column of `cosines` `[images, texts]`. Of equals the first is
    /// taken.
    pub fn of(cosines: &Matrix, most: usize) -> Self {
        let (images, texts) = (cosines.rows, cosines.columns);
        let cosine = |image: usize, text: usize| cosines.values[image * texts + text];
        let texts_of_image: Vec<BTreeSet<usize>> =
            (0..images).map(|image| best(texts, most, |text| cosine(image, text))).collect();
        let images_of_text: Vec<BTreeSet<usize>> =
            (0..texts).map(|text| best(images, most, |image| cosine(image, text))).collect();
        let mut scored = texts_of_image.clone();
        for (text, images) in images_of_text.iter().enumerate() {
            for image in images {
                scored[*image].insert(text);
            }
        }
        let scored = scored.into_iter().map(|texts| texts.into_iter().collect()).collect();
        Self { texts_of_image, images_of_text, scored }
    }

    /// The texts that an image is scored with, in order.
    pub fn texts(&self, image: usize) -> &[usize] {
        &self.scored[image]
    }

    /// All pairs that are scored.
    pub fn pairs(&self) -> usize {
        self.scored.iter().map(Vec::len).sum()
    }

    /// The cosines with the scores of the best few: the matching head's logit and the cosine added up.
    /// `logits` are those of each image's [`Candidates::texts`].
    ///
    /// # Errors
    /// In words: another number of logits.
    pub fn scores(&self, cosines: Matrix, logits: &[Vec<f32>]) -> Result<SimilarityFile, String> {
        let (images, texts) = (cosines.rows, cosines.columns);
        if logits.len() != images || logits.iter().zip(&self.scored).any(|(a, b)| a.len() != b.len()) {
            return Err("there is not one logit for each pair".to_owned());
        }
        let mut by_images = vec![UNSCORED; images * texts];
        let mut by_texts = vec![UNSCORED; images * texts];
        for (image, (scored, logits)) in self.scored.iter().zip(logits).enumerate() {
            for (text, logit) in scored.iter().zip(logits) {
                let score = logit + cosines.values[image * texts + text];
                if self.texts_of_image[image].contains(text) {
                    by_images[image * texts + text] = score;
                }
                if self.images_of_text[*text].contains(&image) {
                    by_texts[text * images + image] = score;
                }
            }
        }
        let by_images = Matrix { rows: images, columns: texts, values: by_images };
        let by_texts = Matrix { rows: texts, columns: images, values: by_texts };
        Ok(SimilarityFile { all: Some(cosines), reranked: Some((by_images, by_texts)) })
    }
}

fn best(count: usize, most: usize, score: impl Fn(usize) -> f32) -> BTreeSet<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    order.into_iter().take(most).collect()
}

/// Numbers as they are stored.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// So many numbers.
///
/// # Errors
/// In words: another length.
pub fn from_bytes(count: usize, bytes: &[u8]) -> Result<Vec<f32>, String> {
    if bytes.len() != 4 * count {
        return Err(format!("has {} bytes for {count} numbers", bytes.len()));
    }
    // Chunks of four are four bytes long.
    Ok(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosines() -> Matrix {
        // Two images, three texts; the third text likes the first image, and both images like the first text.
        Matrix { rows: 2, columns: 3, values: vec![0.9, 0.1, 0.5, 0.8, 0.2, 0.4] }
    }

    #[test]
    fn the_best_few_both_ways_are_scored_once() {
        let candidates = Candidates::of(&cosines(), 1);
        assert_eq!((candidates.texts(0), candidates.texts(1)), (&[0, 2][..], &[0, 1][..]));
        assert_eq!(candidates.pairs(), 4);
        let scored = candidates.scores(cosines(), &[vec![1.0, 2.0], vec![3.0, 4.0]]).unwrap();
        let (by_images, by_texts) = scored.reranked.unwrap();
        assert_eq!(by_images.values, [1.9, UNSCORED, UNSCORED, 3.8, UNSCORED, UNSCORED]);
        assert_eq!(by_texts.values, [1.9, UNSCORED, UNSCORED, 4.2, 2.5, UNSCORED]);
        assert!(candidates.scores(cosines(), &[vec![1.0], vec![3.0, 4.0]]).is_err());
    }

    #[test]
    fn more_than_there_are_is_all() {
        assert_eq!(Candidates::of(&cosines(), 128).pairs(), 6);
        let equal = Matrix { rows: 1, columns: 3, values: vec![0.5; 3] };
        assert_eq!(Candidates::of(&equal, 2).texts_of_image[0], [0, 1].into());
    }

    #[test]
    fn numbers_come_back() {
        let values = [1.5, -100.0, f32::MIN_POSITIVE];
        assert_eq!(from_bytes(3, &to_bytes(&values)).unwrap(), values);
        assert!(from_bytes(2, &to_bytes(&values)).is_err());
    }
}
