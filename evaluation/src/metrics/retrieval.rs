//! Recall of retrieval: how often what belongs together is among the first 1, 5 and 10 that are found.
//!
//! A query is found at a rank if fewer wrong candidates than that are at least as similar as its best right
//! one: a tie counts against. A query without a right candidate that was scored is never found. LAVIS sorts,
//! so that its ties fall as they may; without ties its numbers are these.

use std::collections::BTreeMap;

use crate::error::{EvaluationError, Result};

/// How many of the first candidates are looked at.
pub const RANKS: [usize; 3] = [1, 5, 10];

/// How many queries are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recall {
    /// With a right candidate among the first 1, 5 and 10.
    pub found: [usize; 3],
    /// All of them.
    pub queries: usize,
}

impl Recall {
    /// Of these queries.
    pub fn of(queries: &[Found]) -> Self {
        let among =
            |rank| queries.iter().filter(|query| query.before.is_some_and(|before| before < rank)).count();
        Self { found: RANKS.map(among), queries: queries.len() }
    }

    /// R@1, R@5 and R@10, each 0 to 1.
    pub fn shares(&self) -> [f64; 3] {
        self.found.map(|found| found as f64 / self.queries.max(1) as f64)
    }

    /// R@1, R@5 and R@10 in per cent.
    pub fn percentages(&self) -> [f64; 3] {
        self.found.map(|found| 100.0 * found as f64 / self.queries.max(1) as f64)
    }

    /// The mean of the three, in per cent (`txt_r_mean`, `img_r_mean`).
    pub fn mean(&self) -> f64 {
        self.percentages().into_iter().sum::<f64>() / RANKS.len() as f64
    }
}

/// What a query found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Wrong candidates that are at least as similar as the best right one; `None` if no right one was
    /// scored.
    pub before: Option<usize>,
    /// The most similar candidate; `None` if there is none that was scored.
    pub first: Option<usize>,
}

/// Both ways of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BothRecalls {
    /// An image asks, texts are found.
    pub image_to_text: Recall,
    /// A text asks, images are found.
    pub text_to_image: Recall,
}

impl BothRecalls {
    /// The mean of both means, in per cent (`r_mean`).
    pub fn mean(&self) -> f64 {
        (self.image_to_text.mean() + self.text_to_image.mean()) / 2.0
    }
}

/// Similarities of all images with all texts, each a finite number.
#[derive(Debug, Clone, Copy)]
pub struct Similarities<'a> {
    values: &'a [f32],
    images: usize,
    texts: usize,
    unscored: Option<f32>,
}

impl<'a> Similarities<'a> {
    /// Of `[images, texts]`, image-major.
    ///
    /// # Errors
    /// A number of values that is no such table, or one that is not finite: it compares with nothing, which
    /// is not the first rank.
    pub fn new(values: &'a [f32], images: usize, texts: usize) -> Result<Self> {
        if images.checked_mul(texts) != Some(values.len()) {
            return Err(EvaluationError::Configuration(format!(
                "{} similarities of {images} images and {texts} texts",
                values.len()
            )));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let what = format!("the similarity of picture {} and text {}", at / texts, at % texts);
            return Err(EvaluationError::Measured { what, value: f64::from(values[at]) });
        }
        Ok(Self { values, images, texts, unscored: None })
    }

    /// Pairs of exactly this value were not scored, as where only the first few are ranked anew: a right one
    /// among them is never found.
    pub fn with_unscored(self, value: f32) -> Self {
        Self { unscored: Some(value), ..self }
    }

    /// Recall of texts and of images, where `belongs(image, text)` says which belong together.
    pub fn recalls(&self, belongs: impl Fn(usize, usize) -> bool) -> BothRecalls {
        BothRecalls {
            image_to_text: self.image_to_text(&belongs),
            text_to_image: self.text_to_image(&belongs),
        }
    }

    /// Recall of texts, as of [`Similarities::recalls`].
    pub fn image_to_text(&self, belongs: impl Fn(usize, usize) -> bool) -> Recall {
        Recall::of(&self.texts_found(belongs))
    }

    /// Recall of images, as of [`Similarities::recalls`].
    pub fn text_to_image(&self, belongs: impl Fn(usize, usize) -> bool) -> Recall {
        Recall::of(&self.images_found(belongs))
    }

    /// What each image finds among the texts, where `belongs(image, text)` says what is right.
    pub fn texts_found(&self, belongs: impl Fn(usize, usize) -> bool) -> Vec<Found> {
        self.found(self.images, self.texts, |image, text| (self.at(image, text), belongs(image, text)))
    }

    /// What each text finds among the images, where `belongs(image, text)` says what is right.
    pub fn images_found(&self, belongs: impl Fn(usize, usize) -> bool) -> Vec<Found> {
        self.found(self.texts, self.images, |text, image| (self.at(image, text), belongs(image, text)))
    }

    fn at(&self, image: usize, text: usize) -> f32 {
        self.values[image * self.texts + text]
    }

    /// `score` gives a query's similarity with a candidate, and whether that is a right one.
    fn found(
        &self,
        queries: usize,
        candidates: usize,
        score: impl Fn(usize, usize) -> (f32, bool),
    ) -> Vec<Found> {
        let found = |query| {
            let (mut best, mut first): (Option<f32>, Option<(usize, f32)>) = (None, None);
            for candidate in 0..candidates {
                let (value, right) = score(query, candidate);
                if Some(value) == self.unscored {
                    continue;
                }
                if right {
                    best = Some(best.map_or(value, |best| best.max(value)));
                }
                if first.is_none_or(|(_, highest)| value > highest) {
                    first = Some((candidate, value));
                }
            }
            let scores = || (0..candidates).map(|candidate| score(query, candidate));
            let before = best.map(|best| scores().filter(|(value, right)| !right && *value >= best).count());
            Found { before, first: first.map(|(candidate, _)| candidate) }
        };
        (0..queries).map(found).collect()
    }
}

/// Recalls of images and their own captions, of which equal ones are one text; `None` without two that
/// differ. `similarity` is `[N, N]`, image-major.
///
/// # Errors
/// As of [`Similarities::new`].
pub fn recalls_of_captions(similarity: &[f32], captions: &[&str]) -> Result<Option<BothRecalls>> {
    let rows = captions.len();
    let mut first_rows = BTreeMap::new();
    // The first row with a caption stands for its text.
    let text_of: Vec<usize> = captions
        .iter()
        .enumerate()
        .map(|(row, caption)| *first_rows.entry(*caption).or_insert(row))
        .collect();
    if first_rows.len() < 2 {
        return Ok(None);
    }
    let columns: Vec<usize> = first_rows.values().copied().collect();
    let of_texts: Vec<f32> =
        similarity.chunks(rows).flat_map(|row| columns.iter().map(|column| row[*column])).collect();
    let similarities = Similarities::new(&of_texts, rows, columns.len())?;
    Ok(Some(similarities.recalls(|image, text| text_of[image] == columns[text])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_ranks_and_ties_against() {
        let similarity = [0.9, 0.1, 0.2, 0.5, 0.5, 0.1];
        let similarities = Similarities::new(&similarity, 2, 3).unwrap();
        assert_eq!(similarities.image_to_text(|image, text| image == text).shares(), [0.5, 1.0, 1.0]);
        assert_eq!(similarities.image_to_text(|_, _| false).found, [0; 3], "nothing is right");
    }

    #[test]
    fn what_was_not_scored_is_not_found() {
        // Of four texts two were ranked anew, and the first image's own is not one of them.
        let scores = [-100.0, 1.0, 2.0, -100.0, -100.0, 1.0, 2.0, -100.0];
        let similarities = Similarities::new(&scores, 2, 4).unwrap();
        let own = |image: usize, text: usize| image == text;
        assert_eq!(similarities.image_to_text(own).found, [0, 2, 2]);
        assert_eq!(similarities.with_unscored(-100.0).image_to_text(own).found, [0, 1, 1]);
        let found = similarities.with_unscored(-100.0).texts_found(own);
        assert_eq!(found[0], Found { before: None, first: Some(2) });
        assert_eq!(found[1], Found { before: Some(1), first: Some(2) });
    }

    #[test]
    fn a_similarity_that_is_no_number_has_no_rank() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..6 {
                let mut similarity = [0.9, 0.1, 0.2, 0.5, 0.5, 0.1];
                similarity[at] = odd;
                let error = Similarities::new(&similarity, 2, 3).unwrap_err().to_string();
                assert!(error.contains(&format!("picture {} and text {}", at / 3, at % 3)), "{error}");
            }
        }
        assert!(Similarities::new(&[0.5; 5], 2, 3).is_err());
        assert!(recalls_of_captions(&[f32::NAN; 9], &["a", "b", "c"]).is_err());
    }

    #[test]
    fn recall_both_ways_counts_equal_captions_as_one() {
        // Two images of a cat, one of a dog; the second cat looks more like the dog's text.
        let captions = ["cat", "cat", "dog"];
        let similarity = [0.9, 0.9, 0.1, 0.2, 0.2, 0.6, 0.1, 0.1, 0.5];
        let recalls = recalls_of_captions(&similarity, &captions).unwrap().unwrap();
        assert_eq!(recalls.image_to_text.shares(), [2.0 / 3.0, 1.0, 1.0]);
        // A cat's image is first for `cat`; for `dog` the second cat's is before the dog's.
        assert_eq!(recalls.text_to_image.shares(), [0.5, 1.0, 1.0]);
        assert_eq!(recalls_of_captions(&similarity, &["cat"; 3]).unwrap(), None);
    }
}
