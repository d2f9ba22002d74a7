//! Captions that BLIP draws.

use std::path::Path;

use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_evaluation::image_transform::ImageTransform;
use blip2_evaluation::tokenizer::open_tokenizer;
use blip2_model::blip::BlipCaptioner;
use blip2_model_files::image_processor::ImageProcessor;
use burn::tensor::Device;

use crate::error::Result;
use crate::scoring::{Captioner, CuratedImage, ModelTimes, timed};
use crate::settings::CurationModelSettings;

struct Blip {
    model: BlipCaptioner,
    text: TextEncoder,
    /// Without its special tokens.
    prompt: Vec<u32>,
    transform: ImageTransform,
    device: Device,
    settings: CurationModelSettings,
}

/// Opens a `BlipForConditionalGeneration` folder; captions that it has no room for are refused.
pub(super) fn open(
    folder: &Path,
    settings: &CurationModelSettings,
    device: &Device,
) -> Result<Box<dyn Captioner>> {
    let model = BlipCaptioner::open(folder, device)?;
    let positions = model.config().text.max_positions;
    let text = open_tokenizer(folder, TextEncoding::new(positions, model.config().pad_token))?;
    // The tokenizer frames a text by a class and an end token, which belong to whole texts.
    let framed = text.encode_plain(&settings.prompt)?;
    let frame = text.encode_plain("")?;
    let body = framed.len().saturating_sub(frame.len());
    let before = frame.len().div_ceil(2);
    let prompt: Vec<u32> = framed.into_iter().skip(before).take(body).collect();
    // Of the longest caption the start token is read too, and the last one that is written is not.
    settings.must_fit(positions.saturating_sub(prompt.len()))?;
    let size = model.config().vision.image_size;
    let processor = ImageProcessor::read(folder, ImageProcessor::blip2(size))?;
    let transform = ImageTransform::new(&processor);
    let (device, settings) = (device.clone(), settings.clone());
    Ok(Box::new(Blip { model, text, prompt, transform, device, settings }))
}

impl Captioner for Blip {
    fn captions(&self, images: &[CuratedImage], times: &mut ModelTimes) -> Result<Vec<Vec<String>>> {
        let options = self.settings.options(images.iter().map(|image| image.draw));
        let samples = self.settings.captions;
        let features = timed(&mut times.images, || {
            let pixels = self.transform.tensor(images.iter().map(|image| &image.image), &self.device)?;
            Ok(self.model.image_features(pixels)?)
        })?;
        let written = timed(&mut times.texts, || {
            Ok(self.model.generate_several(features, &self.prompt, samples, &options)?)
        })?;
        written.chunks(samples).map(|texts| self.decode(texts)).collect()
    }
}

impl Blip {
    fn decode(&self, texts: &[Vec<u32>]) -> Result<Vec<String>> {
        let text = |tokens: &Vec<u32>| Ok(self.text.decode(tokens, true)?.trim().to_owned());
        texts.iter().map(text).collect()
    }
}
