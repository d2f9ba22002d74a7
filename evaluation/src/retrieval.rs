//! Image-to-text retrieval over the distinct captions of a set.

use std::path::Path;

use blip2_dataset::corpus::samples::Sample;
use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_model::clip::Clip;
use blip2_model::objectives::contrast::ContrastModel;
use blip2_model_files::image_processor::ImageProcessor;
use blip2_tensors::device::read_back::floats;
use burn::tensor::{Device, Tensor};

use crate::captions::{distinct, readable, token_tensors};
use crate::error::{EvaluationError, Result};
use crate::image_transform::ImageTransform;
use crate::metrics::retrieval::{RANKS, Similarities};
use crate::sample_encoder::{BATCH, SampleEncoder};
use crate::tokenizer::open_tokenizer;

/// Context length of CLIP's text tower in this project's small models; longer captions are cut.
const CLIP_TEXT_LENGTH: usize = 32;

/// Image-to-text retrieval over the distinct captions of a set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retrieval {
    /// Share of images whose caption is among the first 1, 5 and 10.
    pub recall: [f64; 3],
    /// The same for a random order.
    pub chance: [f64; 3],
    /// Images.
    pub images: usize,
    /// Distinct captions.
    pub texts: usize,
}

/// Retrieval by the contrastive similarity of a model trained by contrast (the best of an image's queries).
///
/// # Errors
/// Fewer than two distinct captions, an image that cannot be prepared, a feature that is not finite.
pub fn by_contrast(
    images: &SampleEncoder,
    model: &ContrastModel,
    encoder: &TextEncoder,
    samples: &[Sample],
) -> Result<Retrieval> {
    let samples = &readable(samples, encoder);
    let (texts, truth) = distinct(samples)?;
    let mut text_feats = Vec::new();
    for texts in texts.chunks(BATCH) {
        let (ids, mask) = token_tensors(encoder, texts, images.device())?;
        text_feats.push(model.text_feats(ids, mask)?);
    }
    let text_feats = Tensor::cat(text_feats, 0);
    let mut similarity = Vec::with_capacity(samples.len() * texts.len());
    for features in images.image_features(samples) {
        let image_feats = model.image_feats(features?);
        // The best of several passes over those that are no number.
        all_finite(floats(image_feats.clone())?, "a feature of a picture")?;
        similarity.extend(floats(best_of_queries(image_feats, text_feats.clone()))?);
    }
    retrieval(&similarity, &truth, texts.len())
}

/// Retrieval by the frozen CLIP model of a folder: the yardstick.
///
/// # Errors
/// A folder of another model, fewer than two distinct captions, an image that cannot be prepared.
pub fn by_clip(folder: &Path, device: &Device, samples: &[Sample]) -> Result<Retrieval> {
    let clip = Clip::open(folder, device)?;
    let encoder = open_tokenizer(folder, TextEncoding::new(CLIP_TEXT_LENGTH, 0))?;
    let samples = &readable(samples, &encoder);
    let (texts, truth) = distinct(samples)?;
    let mut text_features = Vec::new();
    for texts in texts.chunks(BATCH) {
        let (ids, mask) = token_tensors(&encoder, texts, device)?;
        text_features.push(clip.text_features(ids, mask)?);
    }
    let text_features = Tensor::cat(text_features, 0);
    let processor = ImageProcessor::read(folder, ImageProcessor::clip(clip.image_size()))?;
    let transform = ImageTransform::new(&processor);
    let mut similarity = Vec::with_capacity(samples.len() * texts.len());
    for samples in samples.chunks(BATCH) {
        let pixels = transform.tensor(samples.iter().map(|sample| &sample.image), device)?;
        let images = clip.image_features(pixels)?;
        similarity.extend(floats(images.matmul(text_features.clone().transpose()))?);
    }
    retrieval(&similarity, &truth, texts.len())
}

/// The best of each image's queries with each text, `[images, texts]`, of `image_feats`
/// `[images, queries, width]` and `text_feats` `[texts, width]`.
pub fn best_of_queries(image_feats: Tensor<3>, text_feats: Tensor<2>) -> Tensor<2> {
    let [rows, queries, width] = image_feats.dims();
    let texts = text_feats.dims()[0];
    let all = image_feats.reshape([rows * queries, width]).matmul(text_feats.transpose());
    all.reshape([rows, queries, texts]).max_dim(1).reshape([rows, texts])
}

fn retrieval(similarity: &[f32], truth: &[usize], texts: usize) -> Result<Retrieval> {
    let similarities = Similarities::new(similarity, truth.len(), texts)?;
    Ok(Retrieval {
        recall: similarities.image_to_text(|image, text| truth[image] == text).shares(),
        chance: RANKS.map(|rank| (rank as f64 / texts as f64).min(1.0)),
        images: truth.len(),
        texts,
    })
}

fn all_finite(values: Vec<f32>, what: &str) -> Result<()> {
    let odd = values.into_iter().find(|value| !value.is_finite());
    odd.map_or(Ok(()), |value| {
        Err(EvaluationError::Measured { what: what.to_owned(), value: f64::from(value) })
    })
}
