//! The models of CapFilt: what is written about a picture, and how well texts fit it.
//!
//! A picture goes once through each image tower, however many texts it has; texts are computed together across
//! pictures, those of similar length in one batch.

mod captions;
mod config;
mod ranking;
mod session;
mod settings;
mod tasks;
mod texts;

use std::time::{Duration, Instant};

use blip2_curation::scored::{ScoredText, TextSource};
use blip2_curation::select::CurationMode;
use blip2_model::device::DeviceName;
use burn::tensor::Device;
use image::RgbImage;

pub use config::CurationConfig;
pub use session::{CurationWorked, CurationWorkerOptions, run_curation_worker};
pub use settings::CurationModelSettings;
pub use tasks::TaskRunner;

use crate::error::{Result, WorkerError};
use captions::CaptionWriter;
use ranking::{Filter, Ranker};

/// A picture with what is known of it.
#[derive(Debug, Clone)]
pub struct CuratedPicture {
    /// The decoded picture.
    pub image: RgbImage,
    /// Texts that came with it.
    pub web: Vec<String>,
    /// What is drawn for the picture is a function of the seed and this number.
    pub draw: u64,
}

/// Where the time goes. A device that computes asynchronously may still be at a picture when its phase ends: the rest is
/// then counted with the texts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CurationTimes {
    /// Pictures.
    pub pictures: u64,
    /// Texts that were scored.
    pub texts: u64,
    /// Image tower of the captioner.
    pub caption_images: Duration,
    /// Writing captions.
    pub caption_texts: Duration,
    /// CLIP's image tower.
    pub clip_images: Duration,
    /// CLIP's text tower.
    pub clip_texts: Duration,
    /// Image tower of the filter.
    pub itm_images: Duration,
    /// The filter's texts.
    pub itm_texts: Duration,
}

/// The models that a curation needs, on one device.
pub struct CurationModels {
    settings: CurationModelSettings,
    writer: Option<CaptionWriter>,
    ranker: Option<Ranker>,
    filter: Option<Filter>,
}

/// What is wrong with the model that `key` names.
fn of_model<'a>(key: &'a str, place: &'a str) -> impl Fn(WorkerError) -> WorkerError + 'a {
    move |error| WorkerError::of_model(key, place, error)
}

impl CurationModels {
    /// Opens what `settings` name; `mode` says which scores are needed.
    ///
    /// # Errors
    /// [`WorkerError::Configuration`] for a missing or contradictory setting; a folder that holds another model.
    pub fn open(settings: &CurationModelSettings, mode: CurationMode) -> Result<Self> {
        settings.validate(mode)?;
        let name = settings.device_name()?;
        let device: Device = name.open().map_err(|error| {
            WorkerError::Configuration(format!("curation.models.device = \"{name}\": {error}"))
        })?;
        let writer = match settings.captions {
            0 => None,
            _ => Some(
                CaptionWriter::open(settings, &device)
                    .map_err(of_model("curation.models.captioner", &settings.captioner))?,
            ),
        };
        let ranker = settings.folder(&settings.clip).map(|folder| {
            Ranker::open(folder, settings.text_batch, &device)
                .map_err(of_model("curation.models.clip", &settings.clip))
        });
        let filter = settings.folder(&settings.itm).map(|folder| {
            Filter::open(folder, settings.text_batch, &device)
                .map_err(of_model("curation.models.itm", &settings.itm))
        });
        Ok(Self {
            settings: settings.clone(),
            writer,
            ranker: ranker.transpose()?,
            filter: filter.transpose()?,
        })
    }

    /// The device that they are on.
    pub(crate) fn device(&self) -> Result<DeviceName> {
        self.settings.device_name()
    }

    /// Pictures computed at a time.
    pub(crate) fn batch(&self) -> usize {
        self.settings.batch
    }

    /// The texts of each picture with their scores: those of the web, then those that are written now, in that order.
    ///
    /// # Errors
    /// A picture that cannot be resized; scores that are not numbers.
    pub fn score(
        &self,
        pictures: &[CuratedPicture],
        times: &mut CurationTimes,
    ) -> Result<Vec<Vec<ScoredText>>> {
        let mut all = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(self.settings.batch) {
            all.extend(self.score_batch(batch, times)?);
        }
        Ok(all)
    }

    fn score_batch(
        &self,
        pictures: &[CuratedPicture],
        times: &mut CurationTimes,
    ) -> Result<Vec<Vec<ScoredText>>> {
        let written = match &self.writer {
            Some(writer) => writer.write(pictures, times)?,
            None => vec![Vec::new(); pictures.len()],
        };
        let scored = |text: String, source| ScoredText { text, source, clip_score: None, itm_score: None };
        let mut all: Vec<Vec<ScoredText>> = pictures
            .iter()
            .zip(written)
            .map(|(picture, written)| {
                let web = picture.web.iter().cloned().map(|text| scored(text, TextSource::Web));
                web.chain(written.into_iter().map(|text| scored(text, TextSource::Synthetic))).collect()
            })
            .collect();
        times.pictures += pictures.len() as u64;
        times.texts += all.iter().map(|texts| texts.len() as u64).sum::<u64>();
        if let Some(ranker) = &self.ranker {
            let scores = ranker.score(pictures, &all, times)?;
            each_text(&mut all, &scores, |text, score| text.clip_score = score);
        }
        if let Some(filter) = &self.filter {
            let scores = filter.score(pictures, &all, times)?;
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
fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let done = work();
    *sum += started.elapsed();
    done
}
