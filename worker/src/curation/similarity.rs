//! How similar texts are to a picture, by CLIP.

use std::path::Path;

use blip2_dataset::{ShortestEdgeTransform, TextEncoder, TextEncoding};
use blip2_model::clip::Clip;
use blip2_model::host::floats;
use burn::tensor::Device;

use super::batches::by_length;
use super::pixels::pixels;
use super::readings::Readings;
use super::times::{PhaseTimes, timed};
use super::{CuratedPicture, CurationModelSettings};
use crate::error::Result;

/// CLIP and its tokenizer.
pub(super) struct SimilarityScorer {
    model: Clip,
    text: TextEncoder,
    text_batch: usize,
    device: Device,
}

/// What padding is filled with: the model does not look at it.
const PAD: u32 = 0;

impl SimilarityScorer {
    pub(super) fn open(settings: &CurationModelSettings, device: &Device) -> Result<Self> {
        let folder = Path::new(&settings.clip);
        let model = Clip::open(folder, device)?;
        let text = TextEncoder::open(folder, TextEncoding::new(model.text_length(), PAD))?;
        Ok(Self { model, text, text_batch: settings.text_batch, device: device.clone() })
    }

    /// The cosine of each reading.
    pub(super) fn score(
        &self,
        pictures: &[CuratedPicture],
        readings: &Readings,
        times: &mut PhaseTimes,
    ) -> Result<Vec<f32>> {
        let images = timed(&mut times.clip_image, &self.device, || self.image_vectors(pictures))?;
        let (texts, of_readings) = readings.distinct_texts();
        let mut spent = std::time::Duration::ZERO;
        let vectors = timed(&mut spent, &self.device, || self.text_vectors(&texts, times))?;
        times.clip_text += spent;
        let width = images.len() / pictures.len().max(1);
        let vector = |of: &[f32], index: usize| of[index * width..(index + 1) * width].to_vec();
        let cosine = |(picture, text): (usize, usize)| {
            let products = vector(&images, picture).into_iter().zip(vector(&vectors, text));
            products.map(|(a, b)| a * b).sum()
        };
        Ok(readings.pictures().zip(of_readings).map(cosine).collect())
    }

    /// Unit vectors, one after the other.
    fn image_vectors(&self, pictures: &[CuratedPicture]) -> Result<Vec<f32>> {
        let images: Vec<_> = pictures.iter().map(|picture| &picture.image).collect();
        let size = self.model.image_size();
        let transform = ShortestEdgeTransform::new(size);
        let pixels = pixels(&images, size, &self.device, |image| transform.apply(image))?;
        Ok(floats(self.model.image_features(pixels)?)?)
    }

    fn text_vectors(&self, texts: &[&str], times: &mut PhaseTimes) -> Result<Vec<f32>> {
        let tokens = texts.iter().map(|text| Ok(self.text.encode_plain(text)?));
        let tokens: Vec<Vec<u32>> = tokens.collect::<Result<_>>()?;
        times.texts_read += tokens.len() as u64;
        let mut vectors = vec![Vec::new(); tokens.len()];
        for batch in by_length(&tokens, self.text_batch, PAD, &self.device, times) {
            let found = floats(self.model.text_features(batch.ids, batch.mask)?)?;
            let width = found.len() / batch.places.len();
            for (place, vector) in batch.places.iter().zip(found.chunks(width)) {
                vectors[*place] = vector.to_vec();
            }
        }
        Ok(vectors.concat())
    }
}
