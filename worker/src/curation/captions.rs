//! Captions that are drawn.

use std::path::Path;

use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_evaluation::captioning::{Caption, Captioner, Decoding};
use blip2_evaluation::image_transform::ImageTransform;
use blip2_evaluation::tokenizer::open_tokenizer;
use blip2_model::blip::BlipCaptioner;
use blip2_model::files::config::FolderConfig;
use blip2_model::files::image_processor::ImageProcessor;
use burn::tensor::Device;
use image::RgbImage;

use super::settings::CurationModelSettings;
use super::{CuratedPicture, CurationTimes, timed};
use crate::error::{Result, WorkerError};

/// A captioner and how it is asked.
pub(super) struct CaptionWriter {
    model: Model,
    settings: CurationModelSettings,
}

enum Model {
    Blip(Box<Blip>),
    Blip2(Box<Captioner>),
}

struct Blip {
    model: BlipCaptioner,
    text: TextEncoder,
    /// Without its special tokens.
    prompt: Vec<u32>,
    pictures: ImageTransform,
    device: Device,
}

impl CaptionWriter {
    /// Opens the captioner's folder; captions that it has no room for are refused.
    pub(super) fn open(settings: &CurationModelSettings, device: &Device) -> Result<Self> {
        let folder = Path::new(&settings.captioner);
        let (model, room) = match FolderConfig::open(folder)?.model_type() {
            "blip-2" | "instructblip" => {
                let captioner = Captioner::open_on(folder, device.clone())?;
                let room = captioner.room().saturating_sub(captioner.prompt_tokens(&settings.prompt)?);
                (Model::Blip2(Box::new(captioner.with_batch(settings.batch * settings.captions))), room)
            }
            // Another type is refused by name.
            _ => {
                let blip = Blip::open(folder, &settings.prompt, device)?;
                let room = blip.room();
                (Model::Blip(Box::new(blip)), room)
            }
        };
        if settings.max_new_tokens > room {
            return Err(WorkerError::Configuration(format!(
                "curation.models.max_new_tokens: {}, the captioner has room for {room} behind the prompt",
                settings.max_new_tokens
            )));
        }
        Ok(Self { model, settings: settings.clone() })
    }

    /// So many captions for each picture.
    pub(super) fn write(
        &self,
        pictures: &[CuratedPicture],
        times: &mut CurationTimes,
    ) -> Result<Vec<Vec<String>>> {
        let options = self.settings.options(pictures.iter().map(|picture| picture.draw));
        let samples = self.settings.captions;
        match &self.model {
            Model::Blip(blip) => {
                let images = pictures.iter().map(|picture| &picture.image);
                let features = timed(&mut times.caption_images, || {
                    let pixels = blip.pictures.tensor(images, &blip.device)?;
                    Ok(blip.model.image_features(pixels)?)
                })?;
                let written = timed(&mut times.caption_texts, || {
                    Ok(blip.model.generate_several(features, &blip.prompt, samples, &options)?)
                })?;
                written.chunks(samples).map(|texts| blip.decode(texts)).collect()
            }
            Model::Blip2(captioner) => {
                let images: Vec<RgbImage> = pictures.iter().map(|picture| picture.image.clone()).collect();
                let seen = timed(&mut times.caption_images, || Ok(captioner.encode(&images)?))?;
                let prompts = vec![self.settings.prompt.clone(); pictures.len()];
                let decoding = Decoding { options, stop: Vec::new(), samples };
                let written =
                    timed(&mut times.caption_texts, || Ok(captioner.generate(&seen, &prompts, &decoding)?))?;
                let texts = |captions: Vec<Caption>| captions.into_iter().map(|caption| caption.text);
                Ok(written.into_iter().map(|captions| texts(captions).collect()).collect())
            }
        }
    }
}

impl Blip {
    fn open(folder: &Path, prompt: &str, device: &Device) -> Result<Self> {
        let model = BlipCaptioner::open(folder, device)?;
        let room = model.config().text.max_positions;
        let text = open_tokenizer(folder, TextEncoding::new(room, model.config().pad_token))?;
        // The tokenizer frames a text by a class and an end token, which belong to whole texts.
        let framed = text.encode_plain(prompt)?;
        let frame = text.encode_plain("")?;
        let body = framed.len().saturating_sub(frame.len());
        let before = frame.len().div_ceil(2);
        let prompt = framed.into_iter().skip(before).take(body).collect();
        let size = model.config().vision.image_size;
        let processor = ImageProcessor::read(folder, ImageProcessor::blip2(size))?;
        let pictures = ImageTransform::new(&processor);
        Ok(Self { model, text, prompt, pictures, device: device.clone() })
    }

    /// Tokens of the longest caption: the start token is read too, and the last one that is written is not.
    fn room(&self) -> usize {
        self.model.config().text.max_positions.saturating_sub(self.prompt.len())
    }

    fn decode(&self, texts: &[Vec<u32>]) -> Result<Vec<String>> {
        let text = |tokens: &Vec<u32>| Ok(self.text.decode(tokens, true)?.trim().to_owned());
        texts.iter().map(text).collect()
    }
}
