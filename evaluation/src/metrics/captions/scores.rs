//! Scores of a set of captions, of each image and of any draw of images.

use super::bleu::BleuCounts;
use super::cider::DocumentFrequencies;
use super::corpus::TokenCorpus;
use super::meteor::MeteorStatistics;
use super::ngrams::{ORDERS, Vocabulary, Word};
use super::rouge::rouge_l;
use crate::error::captions::{CaptionsError, Result};
use crate::row_id::RowId;

/// Of one image what all numbers are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageScores {
    /// Which image.
    pub image: RowId,
    /// Counts, which are added.
    pub bleu: BleuCounts,
    /// ROUGE-L, whose mean is taken.
    pub rouge_l: f64,
    /// CIDEr-D with the document frequencies of the whole set, whose mean is taken.
    pub cider: f64,
    /// Counts, which are added, where METEOR was run.
    pub meteor: Option<MeteorStatistics>,
    /// SPICE, whose mean is taken, where it was run.
    pub spice: Option<f64>,
}

impl ImageScores {
    /// The numbers of this image alone. CIDEr-D is that within the whole set.
    pub fn numbers(&self) -> CaptionNumbers {
        CaptionNumbers::of([self])
    }
}

/// Numbers of several images, as fractions: tables show them times 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CaptionNumbers {
    /// BLEU-1 to BLEU-4, each 0 to 1.
    pub bleu: [f64; ORDERS],
    /// 0 to 1, where METEOR was run.
    pub meteor: Option<f64>,
    /// 0 to 1.
    pub rouge_l: f64,
    /// 0 to 10.
    pub cider: f64,
    /// 0 to 1, where SPICE was run.
    pub spice: Option<f64>,
}

impl CaptionNumbers {
    fn of<'a>(images: impl IntoIterator<Item = &'a ImageScores>) -> Self {
        let images: Vec<&ImageScores> = images.into_iter().collect();
        let mean = |sum: f64| sum / images.len().max(1) as f64;
        let spice: Option<f64> = images.iter().map(|image| image.spice).sum();
        let meteor: Option<MeteorStatistics> = images.iter().map(|image| image.meteor).sum();
        Self {
            bleu: images.iter().map(|image| image.bleu).sum::<BleuCounts>().bleu(),
            meteor: meteor.map(|statistics| statistics.score()),
            rouge_l: mean(images.iter().map(|image| image.rouge_l).sum()),
            cider: mean(images.iter().map(|image| image.cider).sum()),
            spice: spice.map(mean),
        }
    }

    /// Under the toolkit's names, in its order; without those that were not run.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let [one, two, three, four] = self.bleu;
        let bleu = [("Bleu_1", one), ("Bleu_2", two), ("Bleu_3", three), ("Bleu_4", four)];
        let mut named = bleu.to_vec();
        named.extend(self.meteor.map(|value| ("METEOR", value)));
        named.extend([("ROUGE_L", self.rouge_l), ("CIDEr", self.cider)]);
        named.extend(self.spice.map(|value| ("SPICE", value)));
        named
    }
}

/// Scores of a set of captions.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptionScores {
    /// By ascending id.
    pub images: Vec<ImageScores>,
}

impl CaptionScores {
    /// BLEU, ROUGE-L and CIDEr-D of all images.
    pub fn of(corpus: &TokenCorpus) -> Self {
        let mut vocabulary = Vocabulary::default();
        let words: Vec<(Vec<Vec<Word>>, Vec<Word>)> = corpus
            .images()
            .iter()
            .map(|image| {
                let references = image.references.iter().map(|caption| vocabulary.words(caption)).collect();
                (references, vocabulary.words(&image.hypothesis))
            })
            .collect();
        let frequencies = DocumentFrequencies::of(words.iter().map(|(references, _)| references.as_slice()));
        let scores =
            corpus.images().iter().zip(&words).map(|(image, (references, hypothesis))| ImageScores {
                image: image.image.clone(),
                bleu: BleuCounts::of(hypothesis, references),
                rouge_l: rouge_l(hypothesis, references),
                cider: frequencies.cider(hypothesis, references),
                meteor: None,
                spice: None,
            });
        Self { images: scores.collect() }
    }

    /// With METEOR's counts of each image, in this order.
    ///
    /// # Errors
    /// Another number of them than images.
    pub fn with_meteor(mut self, statistics: &[MeteorStatistics]) -> Result<Self> {
        self.one_each("METEOR", statistics.len())?;
        for (image, statistics) in self.images.iter_mut().zip(statistics) {
            image.meteor = Some(*statistics);
        }
        Ok(self)
    }

    /// With SPICE of each image, in this order.
    ///
    /// # Errors
    /// Another number of them than images.
    pub fn with_spice(mut self, values: &[f64]) -> Result<Self> {
        self.one_each("SPICE", values.len())?;
        for (image, value) in self.images.iter_mut().zip(values) {
            image.spice = Some(*value);
        }
        Ok(self)
    }

    fn one_each(&self, what: &'static str, found: usize) -> Result<()> {
        let images = self.images.len();
        if found == images { Ok(()) } else { Err(CaptionsError::Values { what, found, images }) }
    }

    /// The numbers of the set.
    pub fn corpus(&self) -> CaptionNumbers {
        CaptionNumbers::of(&self.images)
    }

    /// The numbers of the images at these places of [`CaptionScores::images`], each as often as it is drawn.
    ///
    /// # Panics
    /// If a place is beyond the images.
    pub fn of_draw(&self, draw: &[usize]) -> CaptionNumbers {
        CaptionNumbers::of(draw.iter().map(|&at| &self.images[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::corpus::{Corpus, ImageCaptions};
    use super::*;

    fn scores() -> CaptionScores {
        let image = |id, reference: &str, hypothesis: &str| ImageCaptions {
            image: RowId::Number(id),
            references: vec![reference.to_owned()],
            hypothesis: hypothesis.to_owned(),
        };
        let images = vec![image(1, "a red dog", "a red cat"), image(2, "two blue birds", "two blue birds")];
        CaptionScores::of(&Corpus::new(images).unwrap().tokenized())
    }

    #[test]
    fn a_draw_of_all_images_is_the_set() {
        let scores = scores();
        assert_eq!(scores.of_draw(&[0, 1]), scores.corpus());
        assert_eq!(scores.of_draw(&[1]), scores.images[1].numbers());
        let twice = scores.of_draw(&[0, 0, 1]);
        assert!((twice.bleu[0] - 7.0 / 9.0).abs() < 1e-9);
        assert!(twice.rouge_l < scores.corpus().rouge_l);
    }

    #[test]
    fn what_was_not_run_has_no_number() {
        let names =
            |scores: &CaptionScores| scores.corpus().named().into_iter().map(|(name, _)| name).collect();
        let without: Vec<&str> = names(&scores());
        assert_eq!(without, ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]);
        let with = scores().with_spice(&[0.25, 0.75]).unwrap();
        let with = with.with_meteor(&[MeteorStatistics::default(); 2]).unwrap();
        let names: Vec<&str> = names(&with);
        assert_eq!(names[4..], ["METEOR", "ROUGE_L", "CIDEr", "SPICE"]);
        assert_eq!(with.corpus().spice, Some(0.5));
        assert!(with.with_spice(&[1.0]).unwrap_err().to_string().contains("1 values for 2 images"));
    }
}
