//! How similar texts and their image are: CLIP's cosine.

use std::path::Path;

use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_evaluation::image_transform::ImageTransform;
use blip2_evaluation::tokenizer::open_tokenizer;
use blip2_model::clip::Clip;
use blip2_model_files::image_processor::ImageProcessor;
use blip2_tensors::device::read_back::floats;
use burn::tensor::Device;

use super::text_batches::{batches, put};
use crate::error::Result;
use crate::scored::ScoredText;
use crate::scoring::{CuratedImage, ModelTimes, Scorer, timed};

struct Ranker {
    clip: Clip,
    transform: ImageTransform,
    text: TextEncoder,
    text_batch: usize,
    device: Device,
}

/// Opens a `CLIPModel` folder.
pub(super) fn open(folder: &Path, text_batch: usize, device: &Device) -> Result<Box<dyn Scorer>> {
    let clip = Clip::open(folder, device)?;
    let text = open_tokenizer(folder, TextEncoding::new(clip.text_length(), 0))?;
    let processor = ImageProcessor::read(folder, ImageProcessor::clip(clip.image_size()))?;
    let transform = ImageTransform::new(&processor);
    Ok(Box::new(Ranker { clip, transform, text, text_batch, device: device.clone() }))
}

impl Scorer for Ranker {
    fn scores(
        &self,
        images: &[CuratedImage],
        texts: &[Vec<ScoredText>],
        times: &mut ModelTimes,
    ) -> Result<Vec<Option<f32>>> {
        let features = timed(&mut times.images, || {
            let pixels = self.transform.tensor(images.iter().map(|image| &image.image), &self.device)?;
            Ok(self.clip.image_features(pixels)?)
        })?;
        timed(&mut times.texts, || {
            let mut scores = vec![None; texts.iter().map(Vec::len).sum()];
            for batch in batches(texts, &self.text, None, self.text_batch, &self.device) {
                let of_texts = features.clone().select(0, batch.image_rows(&self.device));
                let texts = self.clip.text_features(batch.ids, batch.mask)?;
                put(&mut scores, &batch.texts, &floats((of_texts * texts).sum_dim(1))?);
            }
            Ok(scores)
        })
    }
}
