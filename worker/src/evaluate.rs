//! Evaluation of checkpoints on held-out pictures.

use std::collections::BTreeSet;
use std::path::Path;

use blip2_dataset::{KeyedPermutation, Sample, TextEncoder, TextEncoding, Tokens, clean_caption};
use blip2_model::clip::Clip;
use blip2_model::device::read_back::floats;
use blip2_model::files::image_processor::ImageProcessor;
use blip2_model::nn::dropout::Dropout;
use blip2_model::train::tape::Tape;
use blip2_model::vision::ImageEncoder;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::checkpoint::NamedState;
use crate::config::{StepSettings, WorkerConfig};
use crate::convert::{device, image_encoder, placement, qformer_text, tokenizer};
use crate::error::{Result, WorkerError};
use crate::language::Language;
use crate::pictures::{PictureTransform, image_processor};
use crate::state::{FrozenSizes, StageModel, TrainState};

/// Pictures or texts computed at a time.
const BATCH: usize = 64;
/// Words of a caption that are kept.
const MAX_WORDS: usize = 50;
/// Context length of CLIP's text tower in this project's small models; longer captions are cut.
const CLIP_TEXT_LENGTH: usize = 32;

/// Image-to-text retrieval over the distinct captions of a set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retrieval {
    /// Share of pictures whose caption is among the first 1, 5 and 10.
    pub recall: [f64; 3],
    /// The same for a random order.
    pub chance: [f64; 3],
    /// Pictures.
    pub images: usize,
    /// Distinct captions.
    pub texts: usize,
}

/// Mean loss per caption token of a set, without the token that starts a text. With an encoder-decoder, the first words
/// of a caption are read in all three cases and the loss is that of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CaptionLosses {
    /// Each caption behind its own picture.
    pub with_pictures: f64,
    /// Each caption behind another caption's picture.
    pub shuffled: f64,
    /// Captions alone, without a soft prompt.
    pub language_model: f64,
}

/// How many of the first are looked at.
pub(crate) const RANKS: [usize; 3] = [1, 5, 10];

/// The models of a run's checkpoints, without autodiff.
pub struct Evaluator {
    config: WorkerConfig,
    device: Device,
    encoder: ImageEncoder,
    pictures: PictureTransform,
}

impl Evaluator {
    /// Loads the frozen encoder that `config` names.
    pub fn open(config: &WorkerConfig) -> Result<Self> {
        let device = device(&config.train.device, config.train.tf32)?;
        let encoder = image_encoder(&config.model, placement(&config.model, &device)?)?;
        let processor = image_processor(&config.model, encoder.image_size())?;
        let pictures = PictureTransform::new(&processor);
        Ok(Self { config: config.clone(), device, encoder, pictures })
    }

    fn sizes(&self, language_width: usize) -> Result<FrozenSizes> {
        let (text, _) = qformer_text(&self.config.model, self.config.stage1.text_length)?;
        Ok(FrozenSizes { image_width: self.encoder.width(), vocab: text.vocab_size(), language_width })
    }

    fn features(&self, samples: &[&Sample]) -> Result<Vec<Tensor<3>>> {
        let batches = samples.chunks(BATCH).map(|samples| {
            let images = samples.iter().map(|sample| &sample.image);
            let pixels = self.pictures.tensor(images, &self.device)?;
            Ok(self.encoder.forward(pixels)?)
        });
        batches.collect()
    }

    /// Retrieval by the contrastive similarity of a stage-1 state (the best of an image's queries).
    pub fn retrieval(&self, state: &NamedState, samples: &[Sample]) -> Result<Retrieval> {
        let state = TrainState::restore(&self.config, self.sizes(0)?, state, &self.device)?;
        let StageModel::Stage1(model) = &state.model else {
            return Err(WorkerError::checkpoint("stage 2", "retrieval needs the end of stage 1"));
        };
        let (encoder, _) = qformer_text(&self.config.model, self.config.stage1.text_length)?;
        let samples = &readable(samples, &encoder);
        let (texts, truth) = distinct_captions(samples)?;
        let mut text_features = Vec::new();
        for texts in texts.chunks(BATCH) {
            let (ids, mask) = self.token_tensors(&encoder, texts)?;
            text_features.push(model.text_feats(ids, mask)?);
        }
        let text_features = Tensor::cat(text_features, 0);
        let mut similarity = Vec::with_capacity(samples.len() * texts.len());
        for features in self.features(samples)? {
            let images = model.image_feats(features);
            // The best of several passes over those that are no number.
            all_finite(floats(images.clone())?, "a feature of a picture")?;
            let [rows, queries, width] = images.dims();
            let all = images.reshape([rows * queries, width]).matmul(text_features.clone().transpose());
            let best = all.reshape([rows, queries, texts.len()]).max_dim(1).reshape([rows, texts.len()]);
            similarity.extend(floats(best)?);
        }
        recall(&similarity, &truth, texts.len())
    }

    /// Losses of a stage-2 state through the frozen language model.
    pub fn caption_losses(&self, state: &NamedState, samples: &[Sample]) -> Result<CaptionLosses> {
        let place = placement(&self.config.model, &self.device)?;
        let language = Language::open(&self.config, &place)?;
        let sizes = self.sizes(language.model.width())?;
        let state = TrainState::restore(&self.config, sizes, state, &self.device)?;
        let StageModel::Stage2(stage2) = &state.model else {
            return Err(WorkerError::checkpoint("stage 1", "caption losses need a stage-2 checkpoint"));
        };
        let samples = &readable(samples, &language.encoder());
        if samples.is_empty() {
            let reason = "no caption that the language model's tokenizer can take";
            return Err(WorkerError::Configuration(format!("evaluation set: {reason}")));
        }
        let mut prompts = Vec::new();
        for features in self.features(samples)? {
            prompts.push(stage2.forward(features, &mut Dropout::off(), &mut Tape::whole())?);
        }
        let prompts = Tensor::cat(prompts, 0);
        let captions: Vec<String> = samples.iter().map(|sample| caption(sample)).collect();
        let order = other_caption_order(&captions, self.config.train.seed);
        let order: Vec<i32> = order.into_iter().map(|row| row as i32).collect();
        let order = Tensor::<1, Int>::from_data(TensorData::new(order, [samples.len()]), &self.device);
        let shuffled = prompts.clone().select(0, order);
        Ok(CaptionLosses {
            with_pictures: self.mean_loss(&language, Some(prompts), &captions, "with pictures")?,
            shuffled: self.mean_loss(&language, Some(shuffled), &captions, "with others' pictures")?,
            language_model: self.mean_loss(&language, None, &captions, "without pictures")?,
        })
    }

    fn mean_loss(
        &self,
        language: &Language,
        prompts: Option<Tensor<3>>,
        captions: &[String],
        what: &str,
    ) -> Result<f64> {
        let (mut sum, mut count) = (0.0, 0);
        for (index, captions) in captions.chunks(BATCH).enumerate() {
            let batch = language.held_out_texts(captions)?;
            let prompt = prompts.as_ref().map(|all| all.clone().narrow(0, index * BATCH, captions.len()));
            sum += language.model.caption_loss(prompt, &batch.texts(), &self.device)?.value.read()?;
            count += batch.tokens();
        }
        WorkerError::unless_finite(sum / count.max(1) as f64, || format!("the loss of captions {what}"))
    }

    fn token_tensors(
        &self,
        encoder: &TextEncoder,
        texts: &[String],
    ) -> Result<(Tensor<2, Int>, Tensor<2, Int>)> {
        let tokens: Vec<Tokens> = texts.iter().map(|text| encoder.encode(text)).collect::<Result<_, _>>()?;
        Ok(token_tensors(&tokens, &self.device))
    }
}

/// Retrieval by a frozen CLIP model on the device that `train.device` names: the yardstick.
pub fn clip_retrieval(folder: &Path, train: &StepSettings, samples: &[Sample]) -> Result<Retrieval> {
    let device = device(&train.device, train.tf32)?;
    let clip = Clip::open(folder, &device)?;
    let encoder = tokenizer(folder, TextEncoding::new(CLIP_TEXT_LENGTH, 0))?;
    let samples = &readable(samples, &encoder);
    let (texts, truth) = distinct_captions(samples)?;
    let tokens: Vec<Tokens> = texts.iter().map(|text| encoder.encode(text)).collect::<Result<_, _>>()?;
    let mut text_features = Vec::new();
    for tokens in tokens.chunks(BATCH) {
        let (ids, mask) = token_tensors(tokens, &device);
        text_features.push(clip.text_features(ids, mask)?);
    }
    let text_features = Tensor::cat(text_features, 0);
    let processor = ImageProcessor::read(folder, ImageProcessor::clip(clip.image_size()))?;
    let transform = PictureTransform::new(&processor);
    let mut similarity = Vec::with_capacity(samples.len() * texts.len());
    for samples in samples.chunks(BATCH) {
        let pixels = transform.tensor(samples.iter().map(|sample| &sample.image), &device)?;
        let images = clip.image_features(pixels)?;
        similarity.extend(floats(images.matmul(text_features.clone().transpose()))?);
    }
    recall(&similarity, &truth, texts.len())
}

pub(crate) fn pixels(
    images: impl Iterator<Item = std::result::Result<Vec<f32>, blip2_dataset::DatasetError>>,
    size: usize,
    device: &Device,
) -> Result<Tensor<4>> {
    let mut rows = 0;
    let mut all = Vec::new();
    for image in images {
        all.extend(image?);
        rows += 1;
    }
    Ok(Tensor::from_data(TensorData::new(all, [rows, 3, size, size]), device))
}

fn flat_tokens(tokens: &[Tokens]) -> (Vec<i32>, Vec<i32>) {
    let ids = tokens.iter().flat_map(|tokens| tokens.ids.iter().copied()).collect();
    let mask = tokens.iter().flat_map(|tokens| tokens.mask.iter().copied()).collect();
    (ids, mask)
}

fn token_tensors(tokens: &[Tokens], device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
    let (ids, mask) = flat_tokens(tokens);
    let shape = [tokens.len(), ids.len() / tokens.len().max(1)];
    (
        Tensor::from_data(TensorData::new(ids, shape), device),
        Tensor::from_data(TensorData::new(mask, shape), device),
    )
}

/// A sample's first caption, as it is evaluated.
pub(crate) fn caption(sample: &Sample) -> String {
    clean_caption(sample.captions.first().map_or("", String::as_str), MAX_WORDS)
}

/// The samples whose captions the tokenizer can take; the others are counted in the log.
fn readable<'a>(samples: &'a [Sample], encoder: &TextEncoder) -> Vec<&'a Sample> {
    let mut left_out = 0;
    let mut readable = Vec::with_capacity(samples.len());
    for sample in samples {
        match encoder.encode(&caption(sample)) {
            Ok(_) => readable.push(sample),
            Err(error) => {
                if left_out == 0 {
                    tracing::warn!(key = sample.key, %error, "a caption that the tokenizer cannot take: its row is left out");
                }
                left_out += 1;
            }
        }
    }
    if left_out > 0 {
        tracing::warn!(left_out, rows = samples.len(), "rows are left out of this evaluation");
    }
    readable
}

/// The distinct captions in order, and each sample's among them.
fn distinct_captions(samples: &[&Sample]) -> Result<(Vec<String>, Vec<usize>)> {
    let all: Vec<String> = samples.iter().map(|sample| caption(sample)).collect();
    let distinct: Vec<String> = all.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if distinct.len() < 2 {
        let reason = format!("{} distinct captions: retrieval needs two or more", distinct.len());
        return Err(WorkerError::Configuration(format!("evaluation set: {reason}")));
    }
    // Every caption is in the set made of them.
    let place = |caption: &String| distinct.binary_search(caption).unwrap_or(0);
    let truth = all.iter().map(place).collect();
    Ok((distinct, truth))
}

/// For each row, a row with another caption: a keyed shuffle in which equal captions are passed over.
fn other_caption_order(captions: &[String], seed: u64) -> Vec<usize> {
    let count = captions.len();
    let shuffle = KeyedPermutation::keyed(seed, "shuffled pictures", &[], count as u64);
    (0..count)
        .map(|row| {
            let start = shuffle.apply(row as u64) as usize;
            let candidates = (0..count).map(|offset| (start + offset) % count);
            candidates.into_iter().find(|other| captions[*other] != captions[row]).unwrap_or(row)
        })
        .collect()
}

fn all_finite(values: Vec<f32>, what: &str) -> Result<()> {
    let odd = values.into_iter().find(|value| !value.is_finite());
    odd.map_or(Ok(()), |value| Err(WorkerError::Measured { what: what.to_owned(), value: f64::from(value) }))
}

/// R@1, R@5 and R@10 of similarities `[images, texts]`; a tie counts against the picture.
///
/// # Errors
/// A similarity that is not finite: it compares with nothing, which is not the first rank.
pub(crate) fn recall(similarity: &[f32], truth: &[usize], texts: usize) -> Result<Retrieval> {
    if let Some(at) = similarity.iter().position(|value| !value.is_finite()) {
        let (picture, text) = (at / texts.max(1), at % texts.max(1));
        let what = format!("the similarity of picture {picture} and text {text}");
        return Err(WorkerError::Measured { what, value: f64::from(similarity[at]) });
    }
    let mut found = [0usize; 3];
    for (row, own) in similarity.chunks(texts).zip(truth) {
        let better = row.iter().enumerate().filter(|(text, s)| text != own && **s >= row[*own]).count();
        for (found, rank) in found.iter_mut().zip(RANKS) {
            *found += usize::from(better < rank);
        }
    }
    Ok(Retrieval {
        recall: found.map(|found| found as f64 / truth.len().max(1) as f64),
        chance: RANKS.map(|rank| (rank as f64 / texts as f64).min(1.0)),
        images: truth.len(),
        texts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_ranks_and_ties_against() {
        let similarity = [0.9, 0.1, 0.2, 0.5, 0.5, 0.1];
        let retrieval = recall(&similarity, &[0, 1], 3).unwrap();
        assert_eq!(retrieval.recall, [0.5, 1.0, 1.0]);
        assert_eq!(retrieval.chance[0], 1.0 / 3.0);
    }

    #[test]
    fn a_similarity_that_is_no_number_has_no_rank() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..6 {
                let mut similarity = [0.9, 0.1, 0.2, 0.5, 0.5, 0.1];
                similarity[at] = odd;
                let error = recall(&similarity, &[0, 1], 3).unwrap_err().to_string();
                assert!(error.contains(&format!("picture {} and text {}", at / 3, at % 3)), "{error}");
            }
        }
    }

    #[test]
    fn rows_whose_captions_the_tokenizer_cannot_take_are_left_out() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones/clip-tiny/tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let broken = text.replacen("\"unk_token\": null", "\"unk_token\": \"<nowhere>\"", 1);
        let encoder = TextEncoder::from_json(broken.as_bytes(), &path, TextEncoding::new(16, 0)).unwrap();
        let sample = |caption: &str| Sample {
            key: caption.into(),
            captions: vec![caption.into()],
            image: image::RgbImage::new(2, 2),
        };
        let samples = [sample("a red apple"), sample("日本"), sample("a dog")];
        let kept: Vec<&str> = readable(&samples, &encoder).iter().map(|sample| sample.key.as_str()).collect();
        assert_eq!(kept, ["a red apple", "a dog"]);
    }

    #[test]
    fn shuffled_pictures_have_other_captions() {
        let captions: Vec<String> = (0..30).map(|i| format!("caption {}", i / 3)).collect();
        let order = other_caption_order(&captions, 7);
        assert!((0..30).all(|row| captions[row] != captions[order[row]]));
    }
}
