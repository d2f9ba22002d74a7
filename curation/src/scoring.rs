//! What captions and what scores, behind two traits, and how their answers become the texts of images.
//!
//! An image goes once through each image tower, however many texts it has; texts are computed together across
//! images.

use std::time::{Duration, Instant};

use blip2_tensors::device::DeviceName;
use image::RgbImage;

use crate::error::Result;
use crate::scored::{ScoredText, TextSource};

/// An image with what is known of it.
#[derive(Debug, Clone)]
pub struct CuratedImage {
    /// The decoded image.
    pub image: RgbImage,
    /// Texts that came with it.
    pub web: Vec<String>,
    /// What is drawn for the image is a function of the seed and this number.
    pub draw: u64,
}

/// Where the time of one model goes. A device that computes asynchronously may still be at an image when its
/// phase ends: the rest is then counted with the texts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ModelTimes {
    /// Its image tower.
    pub images: Duration,
    /// Its texts.
    pub texts: Duration,
}

/// Where the time goes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CurationTimes {
    /// Images.
    pub images: u64,
    /// Texts that were scored.
    pub texts: u64,
    /// Writing captions.
    pub captioner: ModelTimes,
    /// Ranking.
    pub clip: ModelTimes,
    /// Filtering.
    pub itm: ModelTimes,
}

/// Writes captions.
pub trait Captioner: Send {
    /// The captions of each image, as many as its settings say, in the order in which they were drawn. A
    /// function of each image and its number, whatever it is computed with.
    ///
    /// # Errors
    /// An image that cannot be resized, a device that fails.
    fn captions(&self, images: &[CuratedImage], times: &mut ModelTimes) -> Result<Vec<Vec<String>>>;
}

/// Says how well texts fit their image.
pub trait Scorer: Send {
    /// The scores of `texts`, those of one image after those of the other; none for a text that it cannot
    /// read.
    ///
    /// # Errors
    /// An image that cannot be resized, a device that fails.
    fn scores(
        &self,
        images: &[CuratedImage],
        texts: &[Vec<ScoredText>],
        times: &mut ModelTimes,
    ) -> Result<Vec<Option<f32>>>;
}

/// The models that a curation needs, on one device.
pub struct CurationModels {
    /// Who writes; `None`: texts of the web alone.
    pub captioner: Option<Box<dyn Captioner>>,
    /// Whose scores are [`ScoredText::clip_score`].
    pub clip: Option<Box<dyn Scorer>>,
    /// Whose scores are [`ScoredText::itm_score`].
    pub itm: Option<Box<dyn Scorer>>,
    /// Images computed at a time.
    pub batch: usize,
    /// The device that they are on.
    pub device: DeviceName,
}

impl CurationModels {
    /// The texts of each image with their scores: those of the web, then those that are written now, in that
    /// order.
    ///
    /// # Errors
    /// As [`Captioner::captions`] and [`Scorer::scores`].
    pub fn score(&self, images: &[CuratedImage], times: &mut CurationTimes) -> Result<Vec<Vec<ScoredText>>> {
        let mut all = Vec::with_capacity(images.len());
        for batch in images.chunks(self.batch.max(1)) {
            all.extend(self.score_batch(batch, times)?);
        }
        Ok(all)
    }

    fn score_batch(
        &self,
        images: &[CuratedImage],
        times: &mut CurationTimes,
    ) -> Result<Vec<Vec<ScoredText>>> {
        let written = match &self.captioner {
            Some(captioner) => captioner.captions(images, &mut times.captioner)?,
            None => vec![Vec::new(); images.len()],
        };
        let scored = |text: String, source| ScoredText { text, source, clip_score: None, itm_score: None };
        let mut all: Vec<Vec<ScoredText>> = images
            .iter()
            .zip(written)
            .map(|(image, written)| {
                let web = image.web.iter().cloned().map(|text| scored(text, TextSource::Web));
                web.chain(written.into_iter().map(|text| scored(text, TextSource::Synthetic))).collect()
            })
            .collect();
        times.images += images.len() as u64;
        times.texts += all.iter().map(|texts| texts.len() as u64).sum::<u64>();
        if let Some(clip) = &self.clip {
            let scores = clip.scores(images, &all, &mut times.clip)?;
            each_text(&mut all, &scores, |text, score| text.clip_score = score);
        }
        if let Some(itm) = &self.itm {
            let scores = itm.scores(images, &all, &mut times.itm)?;
            each_text(&mut all, &scores, |text, score| text.itm_score = score);
        }
        Ok(all)
    }
}

/// Scores in the order of all texts.
fn each_text(
    all: &mut [Vec<ScoredText>],
    scores: &[Option<f32>],
    put: impl Fn(&mut ScoredText, Option<f32>),
) {
    all.iter_mut().flatten().zip(scores).for_each(|(text, score)| put(text, *score));
}

/// The result, and the time it took added to `sum`.
pub(crate) fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let done = work();
    *sum += started.elapsed();
    done
}
