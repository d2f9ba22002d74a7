//! Captions of pictures, drawn.

use std::path::Path;

use blip2_dataset::{EvalTransform, KeyedRng, TextEncoder, TextEncoding};
use blip2_model::blip::BlipCaptioner;
use blip2_model::generate::{GenerateOptions, Sampling};
use blip2_model::hf_config::FolderConfig;
use burn::tensor::Device;

use super::pixels::pixels;
use super::settings::refuse;
use super::times::{PhaseTimes, timed};
use super::{CuratedPicture, CurationModelSettings};
use crate::captioner::{Captioner, Writing};
use crate::error::Result;

/// What the draws of captions are for.
const PURPOSE: &str = "caption";

/// A captioner and how it writes.
pub(super) struct CaptionWriter {
    model: Model,
    captions: usize,
    seed: u64,
    /// Without the numbers of the draws.
    options: GenerateOptions,
    device: Device,
}

enum Model {
    Blip(Box<Blip>),
    Blip2 { captioner: Box<Captioner>, prompt: String },
}

struct Blip {
    model: BlipCaptioner,
    text: TextEncoder,
    /// Between the start token and what is written.
    prompt: Vec<u32>,
}

impl CaptionWriter {
    pub(super) fn open(settings: &CurationModelSettings, device: &Device) -> Result<Self> {
        let folder = Path::new(&settings.captioner);
        let (model, room) = match FolderConfig::open(folder)?.model_type() {
            "blip" => Blip::open(folder, &settings.prompt, device)?,
            "blip-2" => {
                let captioner = Captioner::open_on(folder, device.clone())?;
                let captioner = captioner.with_batch(settings.batch * settings.captions);
                let room = captioner.room().saturating_sub(captioner.prompt_tokens(&settings.prompt)?);
                (Model::Blip2 { captioner: Box::new(captioner), prompt: settings.prompt.clone() }, room)
            }
            other => {
                let reason = format!(
                    "`{}` holds a model of type `{other}`; `blip` and `blip-2` write captions",
                    settings.captioner
                );
                return refuse("captioner", &reason);
            }
        };
        if settings.max_new_tokens > room {
            let reason =
                format!("{}, the captioner has room for {room} behind the prompt", settings.max_new_tokens);
            return refuse("max_new_tokens", &reason);
        }
        let sampling = Sampling {
            temperature: settings.temperature,
            top_p: settings.top_p,
            seed: settings.seed,
            ..Sampling::default()
        };
        let options = GenerateOptions {
            max_new_tokens: settings.max_new_tokens,
            min_new_tokens: settings.min_new_tokens,
            repetition_penalty: settings.repetition_penalty,
            sampling: Some(sampling),
            ..GenerateOptions::default()
        };
        Ok(Self { model, captions: settings.captions, seed: settings.seed, options, device: device.clone() })
    }

    /// The captions of each picture, in the order of their draws.
    pub(super) fn write(
        &self,
        pictures: &[CuratedPicture],
        times: &mut PhaseTimes,
    ) -> Result<Vec<Vec<String>>> {
        let mut options = self.options.clone();
        if let Some(sampling) = &mut options.sampling {
            sampling.numbers = pictures.iter().flat_map(|picture| self.draws(picture)).collect();
        }
        match &self.model {
            Model::Blip(blip) => {
                let images: Vec<_> = pictures.iter().map(|picture| &picture.image).collect();
                let size = blip.model.config().vision.image_size;
                let transform = EvalTransform::new(size);
                let features = timed(&mut times.caption_image, &self.device, || {
                    let pixels = pixels(&images, size, &self.device, |image| transform.apply(image))?;
                    Ok(blip.model.image_features(pixels)?)
                })?;
                timed(&mut times.caption_text, &self.device, || {
                    let tokens =
                        blip.model.generate_several(features, &blip.prompt, self.captions, &options)?;
                    let texts =
                        tokens.iter().map(|tokens| Ok(blip.text.decode(tokens, true)?.trim().to_owned()));
                    let texts: Vec<String> = texts.collect::<Result<_>>()?;
                    Ok(texts.chunks(self.captions).map(<[String]>::to_vec).collect())
                })
            }
            Model::Blip2 { captioner, prompt } => {
                let images: Vec<_> = pictures.iter().map(|picture| picture.image.clone()).collect();
                let seen = timed(&mut times.caption_image, &self.device, || captioner.look(&images))?;
                let prompts = vec![prompt.clone(); pictures.len()];
                let writing = Writing { options, stop: Vec::new(), samples: self.captions };
                let captions = timed(&mut times.caption_text, &self.device, || {
                    captioner.write(&seen, &prompts, &writing)
                })?;
                Ok(captions
                    .into_iter()
                    .map(|captions| captions.into_iter().map(|caption| caption.text).collect())
                    .collect())
            }
        }
    }

    /// A number for each caption of a picture: of no other picture, caption or batch.
    fn draws(&self, picture: &CuratedPicture) -> impl Iterator<Item = u64> {
        let (seed, draw) = (self.seed, picture.draw);
        (0..self.captions as u64)
            .map(move |caption| KeyedRng::new(seed, PURPOSE, &[draw, caption]).next_u64())
    }
}

impl Blip {
    /// With the longest text that there is room for.
    fn open(folder: &Path, prompt: &str, device: &Device) -> Result<(Model, usize)> {
        let model = BlipCaptioner::open(folder, device)?;
        let config = model.config();
        let positions = config.text.max_positions;
        let text = TextEncoder::open(folder, TextEncoding::new(positions, config.pad_token))?;
        let class = text.id_of("[CLS]");
        let mut prompt = text.encode_plain(prompt)?;
        // The tokenizer frames whole texts.
        prompt.retain(|id| Some(*id) != class && *id != config.end_token);
        // The start token is read too, and the last one that is written is not.
        let room = positions.saturating_sub(prompt.len());
        Ok((Model::Blip(Box::new(Self { model, text, prompt })), room))
    }
}
