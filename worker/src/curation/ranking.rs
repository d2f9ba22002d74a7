//! How well texts fit their picture: CLIP's cosine, and the probability of a match.

use std::path::Path;

use blip2_curation::scored::ScoredText;
use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_evaluation::image_transform::ImageTransform;
use blip2_evaluation::tokenizer::open_tokenizer;
use blip2_model::blip::BlipRetrieval;
use blip2_model::clip::Clip;
use blip2_model::device::read_back::floats;
use blip2_model::files::image_processor::ImageProcessor;
use burn::tensor::Device;
use burn::tensor::activation::softmax;

use super::texts::batches;
use super::{CuratedPicture, CurationTimes, timed};
use crate::error::{Result, WorkerError};

/// Tokens of a text that the filter reads.
const FILTER_LENGTH: usize = 35;
/// The token that the filter has in the place of a text's first.
const FILTER_START: &str = "[ENC]";

/// CLIP.
pub(super) struct Ranker {
    clip: Clip,
    pictures: ImageTransform,
    text: TextEncoder,
    text_batch: usize,
    device: Device,
}

impl Ranker {
    pub(super) fn open(folder: &Path, text_batch: usize, device: &Device) -> Result<Self> {
        let clip = Clip::open(folder, device)?;
        let text = open_tokenizer(folder, TextEncoding::new(clip.text_length(), 0))?;
        let processor = ImageProcessor::read(folder, ImageProcessor::clip(clip.image_size()))?;
        let pictures = ImageTransform::new(&processor);
        Ok(Self { clip, pictures, text, text_batch, device: device.clone() })
    }

    /// The cosine of each text with its picture, in the order of the texts; none for a text that the tokenizer cannot take.
    pub(super) fn score(
        &self,
        pictures: &[CuratedPicture],
        all: &[Vec<ScoredText>],
        times: &mut CurationTimes,
    ) -> Result<Vec<Option<f32>>> {
        let images = timed(&mut times.clip_images, || {
            let seen = pictures.iter().map(|picture| &picture.image);
            Ok(self.clip.image_features(self.pictures.tensor(seen, &self.device)?)?)
        })?;
        timed(&mut times.clip_texts, || {
            let mut scores = vec![None; all.iter().map(Vec::len).sum()];
            for batch in batches(all, &self.text, None, self.text_batch, &self.device) {
                let of_texts = images.clone().select(0, batch.picture_rows(&self.device));
                let texts = self.clip.text_features(batch.ids, batch.mask)?;
                put(&mut scores, &batch.texts, &floats((of_texts * texts).sum_dim(1))?);
            }
            Ok(scores)
        })
    }
}

/// BLIP's filter.
pub(super) struct Filter {
    model: BlipRetrieval,
    pictures: ImageTransform,
    text: TextEncoder,
    start: u32,
    text_batch: usize,
    device: Device,
}

impl Filter {
    pub(super) fn open(folder: &Path, text_batch: usize, device: &Device) -> Result<Self> {
        let model = BlipRetrieval::open(folder, device)?;
        let length = FILTER_LENGTH.min(model.config().text.max_positions);
        let text = open_tokenizer(folder, TextEncoding::new(length, model.config().pad_token))?;
        // BERT's vocabulary is followed by the start tokens of decoder and encoder.
        let start =
            text.id_of(FILTER_START).or_else(|| text.vocab_size().try_into().ok().map(|size: u32| size + 1));
        let start = start.filter(|start| (*start as usize) < model.config().text.vocab).ok_or_else(|| {
            let folder = folder.display();
            WorkerError::Configuration(format!("curation.models.itm: `{folder}` has no token {FILTER_START}"))
        })?;
        let size = model.config().vision.image_size;
        let processor = ImageProcessor::read(folder, ImageProcessor::blip2(size))?;
        let pictures = ImageTransform::new(&processor);
        Ok(Self { model, pictures, text, start, text_batch, device: device.clone() })
    }

    /// The probability that each text matches its picture, in the order of the texts; none for a text that the tokenizer
    /// cannot take.
    pub(super) fn score(
        &self,
        pictures: &[CuratedPicture],
        all: &[Vec<ScoredText>],
        times: &mut CurationTimes,
    ) -> Result<Vec<Option<f32>>> {
        let images = timed(&mut times.itm_images, || {
            let seen = pictures.iter().map(|picture| &picture.image);
            let features = self.model.image_features(self.pictures.tensor(seen, &self.device)?)?;
            Ok(self.model.look(&features))
        })?;
        timed(&mut times.itm_texts, || {
            let mut scores = vec![None; all.iter().map(Vec::len).sum()];
            for batch in batches(all, &self.text, Some(self.start), self.text_batch, &self.device) {
                let logits = self.model.match_logits_of(&images, &batch.pictures, batch.ids, batch.mask)?;
                put(&mut scores, &batch.texts, &floats(softmax(logits, 1).narrow(1, 1, 1))?);
            }
            Ok(scores)
        })
    }
}

/// Scores of some of the texts in their places.
fn put(scores: &mut [Option<f32>], texts: &[usize], found: &[f32]) {
    texts.iter().zip(found).for_each(|(text, score)| scores[*text] = Some(*score));
}
