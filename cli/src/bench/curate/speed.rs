//! How fast models of given sizes caption and score, with random weights over random pictures.

use std::time::{Duration, Instant};

use blip2_curation::scoring::CurationTimes;
use blip2_curation::settings::CurationModelSettings;
use blip2_model::blip::{BlipCaptioner, BlipConfig};
use blip2_model::clip::{Clip, ClipTextConfig};
use blip2_model::vision::ClipVisionConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::randomise;
use blip2_random::KeyedRng;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::device::read_back::floats;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::error::CliError;

/// Key of what is made up.
const SEED: u64 = 42;

/// Sizes of the models.
#[derive(Debug, Clone)]
pub(super) struct CurationSizes {
    pub(super) captioner: BlipConfig,
    pub(super) clip_vision: ClipVisionConfig,
    pub(super) clip_text: ClipTextConfig,
    /// Numbers of CLIP's vectors.
    pub(super) projection: usize,
}

/// What is done.
#[derive(Debug, Clone)]
pub(super) struct CurationLoad {
    pub(super) pictures: u64,
    /// How captions are drawn, and what is computed at a time; all captions have as many tokens as the
    /// settings let the longest have.
    pub(super) settings: CurationModelSettings,
}

/// Models whose curation is timed.
pub(super) struct CurationSpeed {
    captioner: BlipCaptioner,
    clip: Clip,
    clip_text: ClipTextConfig,
    device: Device,
}

impl CurationSpeed {
    /// Models of these sizes, whose weights mean nothing.
    ///
    /// # Errors
    /// Sizes that no model can have.
    pub(super) fn random(sizes: &CurationSizes) -> Result<Self, CliError> {
        let device = Device::flex();
        let place = Placement::auto(&device);
        let mut captioner = BlipCaptioner::new(&sizes.captioner, &device);
        randomise(&mut captioner, &place).map_err(failed)?;
        let clip = Clip::new(&sizes.clip_vision, &sizes.clip_text, sizes.projection, &device);
        let mut clip = clip.map_err(failed)?;
        randomise(&mut clip, &place).map_err(failed)?;
        Ok(Self { captioner, clip, clip_text: sizes.clip_text.clone(), device })
    }

    /// Captions and scores pictures, the first batch of them once more before, unmeasured. A picture has one
    /// text besides its captions.
    ///
    /// # Errors
    /// More tokens than the models take.
    pub(super) fn measure(&self, load: &CurationLoad) -> Result<CurationTimes, CliError> {
        let batch = load.settings.batch as u64;
        self.curate(0..load.pictures.min(batch), &load.settings, &mut CurationTimes::default())?;
        let mut times = CurationTimes::default();
        for first in (0..load.pictures).step_by(load.settings.batch) {
            self.curate(first..load.pictures.min(first + batch), &load.settings, &mut times)?;
        }
        Ok(times)
    }

    fn curate(
        &self,
        pictures: std::ops::Range<u64>,
        settings: &CurationModelSettings,
        times: &mut CurationTimes,
    ) -> Result<(), CliError> {
        let size = self.captioner.config().vision.image_size;
        let pixels = self.pixels(pictures.clone(), size);
        let features = timed(&mut times.captioner.images, || self.captioner.image_features(pixels))?;
        let options = settings.options(pictures.clone());
        timed(&mut times.captioner.texts, || {
            self.captioner.generate_several(features, &[], settings.captions, &options)
        })?;
        let pixels = self.pixels(pictures.clone(), self.clip.image_size());
        let features = timed(&mut times.clip.images, || self.clip.image_features(pixels))?;
        let texts: Vec<u64> = pictures
            .clone()
            .flat_map(|picture| std::iter::repeat_n(picture - pictures.start, settings.captions + 1))
            .collect();
        timed(&mut times.clip.texts, || {
            for of_texts in texts.chunks(settings.text_batch) {
                // A start and an end token around a caption's.
                let ids = self.ids(of_texts.len(), settings.max_new_tokens + 2);
                let rows: Vec<i32> = of_texts.iter().map(|picture| *picture as i32).collect();
                let of_pictures =
                    features.clone().select(0, Tensor::from_ints(rows.as_slice(), &self.device));
                let mask = Tensor::ones(ids.dims(), &self.device);
                let vectors = self.clip.text_features(ids, mask)?;
                floats((of_pictures * vectors).sum_dim(1))?;
            }
            Ok(())
        })?;
        times.images += pictures.end - pictures.start;
        times.texts += texts.len() as u64;
        Ok(())
    }

    /// `[pictures, 3, size, size]`, each a function of its number.
    fn pixels(&self, pictures: std::ops::Range<u64>, size: usize) -> Tensor<4> {
        let count = (pictures.end - pictures.start) as usize;
        let values: Vec<f32> = pictures
            .flat_map(|picture| {
                let mut random = KeyedRng::new(SEED, "bench picture", &[picture]);
                (0..3 * size * size).map(move |_| (4.0 * random.uniform() - 2.0) as f32)
            })
            .collect();
        Tensor::from_data(TensorData::new(values, [count, 3, size, size]), &self.device)
    }

    /// Texts of random tokens that end with an end token, `[texts, length]`.
    fn ids(&self, texts: usize, length: usize) -> Tensor<2, Int> {
        let words = self.clip_text.vocab_size as u64;
        let mut random = KeyedRng::new(SEED, "bench texts", &[]);
        let mut ids: Vec<i32> = (0..texts * length).map(|_| random.below(words) as i32).collect();
        let end = self.clip_text.eos_token_id as i32;
        ids.iter_mut().skip(length - 1).step_by(length).for_each(|id| *id = end);
        Tensor::from_data(TensorData::new(ids, [texts, length]), &self.device)
    }
}

fn failed(error: ModelError) -> CliError {
    CliError::failed(error.to_string())
}

/// The result, and the time it took added to `sum`.
fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> Result<T, ModelError>) -> Result<T, CliError> {
    let started = Instant::now();
    let done = work();
    *sum += started.elapsed();
    done.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_model::qformer::QFormerConfig;
    use blip2_model::vision::EvaConfig;

    fn sizes() -> CurationSizes {
        let captioner = BlipConfig {
            vision: EvaConfig {
                width: 8,
                depth: 1,
                heads: 2,
                intermediate: 8,
                image_size: 8,
                patch_size: 4,
                layer_norm_eps: 1e-5,
            },
            text: QFormerConfig::new(8)
                .with_hidden(8)
                .with_layers(2)
                .with_heads(2)
                .with_intermediate(8)
                .with_vocab(12)
                .with_max_positions(6)
                .with_cross_attention_frequency(1),
            projection: 4,
            start_token: 5,
            end_token: 3,
            pad_token: 0,
        };
        let clip_vision = ClipVisionConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 8,
            image_size: 8,
            patch_size: 4,
            ..ClipVisionConfig::default()
        };
        let clip_text = ClipTextConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 8,
            vocab_size: 20,
            max_position_embeddings: 8,
            eos_token_id: 19,
            ..ClipTextConfig::default()
        };
        CurationSizes { captioner, clip_vision, clip_text, projection: 4 }
    }

    fn load(pictures: u64, tokens: usize) -> CurationLoad {
        let settings = CurationModelSettings {
            captions: 3,
            min_new_tokens: tokens,
            max_new_tokens: tokens,
            batch: 2,
            text_batch: 5,
            ..CurationModelSettings::default()
        };
        CurationLoad { pictures, settings }
    }

    #[test]
    fn every_picture_is_captioned_and_every_text_scored() {
        let times = CurationSpeed::random(&sizes()).unwrap().measure(&load(5, 4)).unwrap();
        assert_eq!((times.images, times.texts), (5, 20));
        for phase in [times.captioner.images, times.captioner.texts, times.clip.images, times.clip.texts] {
            assert!(phase > Duration::ZERO);
        }
    }

    #[test]
    fn captions_that_do_not_fit_are_an_error() {
        let error = CurationSpeed::random(&sizes()).unwrap().measure(&load(1, 9)).unwrap_err().to_string();
        assert!(error.contains("tokens"), "{error}");
    }
}
