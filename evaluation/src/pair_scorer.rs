//! Images and texts compared by an exported model with contrastive and matching heads.

use std::path::Path;

use blip2_dataset::text::{TextEncoder, TextEncoding, clean_caption};
use blip2_model::blip2::Blip2Retrieval;
use blip2_tensors::device::DeviceName;
use blip2_tensors::device::read_back::floats;
use burn::tensor::{Device, Tensor};
use image::RgbImage;

use crate::captions::token_tensors;
use crate::error::{EvaluationError, Result};
use crate::image_transform::ImageTransform;
use crate::retrieval::best_of_queries;
use crate::tokenizer::open_tokenizer;

/// Images or texts computed at a time.
const BATCH: usize = 64;
/// Tokens of a text, as LAVIS evaluates retrieval.
const TEXT_LENGTH: usize = 35;
/// Words of a text that are kept.
const MAX_WORDS: usize = 50;

/// A folder of `Blip2ForImageTextRetrieval` with its tokenizer.
pub struct PairScorer {
    model: Blip2Retrieval,
    text: TextEncoder,
    device: Device,
}

/// Texts as the contrastive head sees them, `[texts, width]`, normalised.
#[derive(Debug, Clone)]
pub struct TextFeatures(Tensor<2>);

/// What the matching head says of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matched {
    /// Logit of "matched", the mean over the queries; what pairs are ranked by.
    pub logit: f32,
    /// Probability of "matched" against "not matched".
    pub probability: f32,
}

impl PairScorer {
    /// Opens a folder; images are of `side` pixels where that is given.
    ///
    /// # Errors
    /// A device that is not there, another model, or weights that do not fit its configuration.
    pub fn open(folder: &Path, device: DeviceName, side: Option<usize>) -> Result<Self> {
        let device = device.open().map_err(|error| EvaluationError::Configuration(error.to_string()))?;
        let model = Blip2Retrieval::open(folder, &device)?;
        let model = match side {
            Some(side) => model.resized(side)?,
            None => model,
        };
        let length = TEXT_LENGTH.min(model.qformer_config().max_positions);
        let text = open_tokenizer(folder, TextEncoding::new(length, 0))?;
        Ok(Self { model, text, device })
    }

    /// Side of its images, pixels.
    pub fn image_size(&self) -> usize {
        self.model.encoder().image_size()
    }

    /// Texts to compare images with; they are cleaned as captions are.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn texts(&self, texts: &[String]) -> Result<TextFeatures> {
        let mut features = Vec::new();
        for texts in cleaned(texts).chunks(BATCH) {
            let (ids, mask) = token_tensors(&self.text, texts, &self.device)?;
            features.push(self.model.contrast().text_feats(ids, mask)?);
        }
        Ok(TextFeatures(Tensor::cat(features, 0)))
    }

    /// Cosine of each image's best query with each text, `[images, texts]`, one image after the other.
    ///
    /// # Errors
    /// An image that cannot be prepared, a cosine that is no number.
    pub fn cosines(&self, images: &[RgbImage], texts: &TextFeatures) -> Result<Vec<f32>> {
        let mut cosines = Vec::new();
        for images in images.chunks(BATCH) {
            let features = self.model.encoder().forward(self.pixels(images)?)?;
            let image_feats = self.model.contrast().image_feats(features);
            cosines.extend(floats(best_of_queries(image_feats, texts.0.clone()))?);
        }
        finite(cosines, "a cosine of an image and a text")
    }

    /// What the matching head says of an image with each of some texts.
    ///
    /// # Errors
    /// An image that cannot be prepared, a text that the tokenizer refuses, a logit that is no number.
    pub fn matched(&self, image: &RgbImage, texts: &[String]) -> Result<Vec<Matched>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let features = self.model.encoder().forward(self.pixels(std::slice::from_ref(image))?)?;
        let image = self.model.contrast().image_key_values(features);
        let mut logits = Vec::new();
        for texts in cleaned(texts).chunks(BATCH) {
            let (ids, mask) = token_tensors(&self.text, texts, &self.device)?;
            logits.extend(floats(self.model.contrast().match_logits(&image, ids, mask)?)?);
        }
        let logits = finite(logits, "a matching logit")?;
        let matched =
            |pair: &[f32]| Matched { logit: pair[1], probability: 1.0 / (1.0 + (pair[0] - pair[1]).exp()) };
        Ok(logits.chunks_exact(2).map(matched).collect())
    }

    fn pixels(&self, images: &[RgbImage]) -> Result<Tensor<4>> {
        ImageTransform::new(self.model.processor()).tensor(images.iter(), &self.device)
    }
}

fn cleaned(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| clean_caption(text, MAX_WORDS)).collect()
}

fn finite(values: Vec<f32>, what: &str) -> Result<Vec<f32>> {
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(values),
        Some(value) => Err(EvaluationError::Measured { what: what.to_owned(), value: f64::from(*value) }),
    }
}
