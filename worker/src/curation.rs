//! The models of CapFilt: what writes captions about pictures, and what scores texts about them.
//!
//! A picture goes through each model's encoder once, and all its texts share what came out; texts are read in batches
//! over pictures, by their length, of equal ones one. What a caption is depends on the models, the seed, the picture and
//! its number of draw alone.

mod batches;
mod matching;
mod pixels;
mod readings;
mod settings;
mod similarity;
mod times;
mod writer;

use blip2_dataset::{RgbImage, ScoredText, TextSource};

use crate::error::Result;
use matching::MatchScorer;
use readings::Readings;
use similarity::SimilarityScorer;
use writer::CaptionWriter;

pub use settings::CurationModelSettings;
pub use times::PhaseTimes;

/// A picture whose texts are to be scored.
#[derive(Debug, Clone)]
pub struct CuratedPicture {
    /// As it was stored.
    pub image: RgbImage,
    /// The texts that came with it, as they were found.
    pub web: Vec<String>,
    /// Chooses the draws of its captions: pictures of one job have different ones.
    pub draw: u64,
}

/// The models that the settings name, on one device.
pub struct CurationModels {
    writer: Option<CaptionWriter>,
    similarity: Option<SimilarityScorer>,
    matching: Option<MatchScorer>,
    batch: usize,
}

impl CurationModels {
    /// Opens the models; those that no folder is named for are left out.
    ///
    /// # Errors
    /// A device that is not there, another model, weights or a tokenizer that do not fit it, captions longer than the
    /// captioner can write.
    pub fn open(settings: &CurationModelSettings) -> Result<Self> {
        let device = settings.device_name()?.open();
        let device = device.or_else(|error| settings::refuse("device", &format!("{error}")))?;
        let writes = settings.captions > 0;
        Ok(Self {
            writer: writes.then(|| CaptionWriter::open(settings, &device)).transpose()?,
            similarity: (!settings.clip.is_empty())
                .then(|| SimilarityScorer::open(settings, &device))
                .transpose()?,
            matching: (!settings.itm.is_empty()).then(|| MatchScorer::open(settings, &device)).transpose()?,
            batch: settings.batch.max(1),
        })
    }

    /// The texts of each picture, those of the web first, then what was written, each in its order, with their scores.
    ///
    /// # Errors
    /// A picture without pixels, a text that a tokenizer refuses, a device that fails.
    pub fn score(&self, pictures: &[CuratedPicture]) -> Result<Vec<Vec<ScoredText>>> {
        self.score_timed(pictures, &mut PhaseTimes::default())
    }

    /// [`CurationModels::score`], which adds to `times` what it took.
    ///
    /// # Errors
    /// As of [`CurationModels::score`].
    pub fn score_timed(
        &self,
        pictures: &[CuratedPicture],
        times: &mut PhaseTimes,
    ) -> Result<Vec<Vec<ScoredText>>> {
        let mut scored = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(self.batch) {
            scored.extend(self.score_batch(pictures, times)?);
        }
        Ok(scored)
    }

    fn score_batch(
        &self,
        pictures: &[CuratedPicture],
        times: &mut PhaseTimes,
    ) -> Result<Vec<Vec<ScoredText>>> {
        let written = match &self.writer {
            Some(writer) => writer.write(pictures, times)?,
            None => vec![Vec::new(); pictures.len()],
        };
        let texts_of = |(picture, written): (&CuratedPicture, Vec<String>)| {
            let web = picture.web.iter().map(|text| unscored(text.clone(), TextSource::Web));
            web.chain(written.into_iter().map(|text| unscored(text, TextSource::Synthetic))).collect()
        };
        let mut texts: Vec<Vec<ScoredText>> = pictures.iter().zip(written).map(texts_of).collect();
        times.pictures += pictures.len() as u64;
        times.texts += texts.iter().map(Vec::len).sum::<usize>() as u64;
        let readings = Readings::new(&texts);
        if let Some(similarity) = &self.similarity {
            let found = similarity.score(pictures, &readings, times)?;
            texts.iter_mut().flatten().zip(found).for_each(|(text, score)| text.clip_score = Some(score));
        }
        if let Some(matching) = &self.matching {
            let found = matching.score(pictures, &readings, times)?;
            texts.iter_mut().flatten().zip(found).for_each(|(text, score)| text.itm_score = Some(score));
        }
        Ok(texts)
    }
}

fn unscored(text: String, source: TextSource) -> ScoredText {
    ScoredText { text, source, clip_score: None, itm_score: None }
}
