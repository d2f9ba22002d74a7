//! Text for pictures, from an exported folder.

use std::path::Path;

use blip2_dataset::{TextEncoder, TextEncoding};
use blip2_model::blip2::Blip2;
use blip2_model::device::DeviceName;
use blip2_model::generate::GenerateOptions;
use blip2_model::language_model::LanguageModel;
use burn::tensor::{Device, Tensor};
use image::RgbImage;

use crate::error::{Result, WorkerError};
use crate::evaluate::eval_pixels;

/// Pictures computed at a time.
const BATCH: usize = 16;

/// A model folder and its tokenizer.
pub struct Captioner {
    model: Blip2,
    text: TextEncoder,
    device: Device,
}

/// What was written for a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// Without special tokens, trimmed.
    pub text: String,
    /// Every generated token, the end token included.
    pub tokens: Vec<u32>,
}

impl Captioner {
    /// Opens a `Blip2ForConditionalGeneration` folder with its tokenizer.
    ///
    /// # Errors
    /// A device that is not there, another model, or weights that do not fit its configuration.
    pub fn open(folder: &Path, device: DeviceName) -> Result<Self> {
        let device = device.open().map_err(|error| WorkerError::Configuration(error.to_string()))?;
        let model = Blip2::open(folder, &device)?;
        // A prompt may fill what the language model reads, behind the queries.
        let room = model.language_model().max_positions().saturating_sub(model.qformer_config().queries);
        // Llama's tokenizers do not all put the start token in front, where training put it.
        let start = matches!(model.language_model(), LanguageModel::Llama(_)).then_some(model.tokens().bos);
        let encoding = TextEncoding { start, ..TextEncoding::new(room, model.tokens().pad) };
        let text = TextEncoder::open(folder, encoding)?;
        Ok(Self { model, text, device })
    }

    /// Continues `prompt` for each picture; `options.eos` empty means the model's own end tokens.
    pub fn captions(
        &self,
        images: &[RgbImage],
        prompt: &str,
        options: &GenerateOptions,
    ) -> Result<Vec<Caption>> {
        let mut options = options.clone();
        if options.eos.is_empty() {
            options.eos = self.model.tokens().eos.clone();
        }
        // The tokenizer puts the start token in front.
        let prompt_ids = self.text.encode_plain(prompt)?;
        let mut captions = Vec::with_capacity(images.len());
        for images in images.chunks(BATCH) {
            let size = self.model.encoder().image_size();
            let pixels = images.iter().map(|image| eval_pixels(image, size, &self.device));
            let pixels = Tensor::cat(pixels.collect::<Result<Vec<_>>>()?, 0);
            let prompts = vec![prompt_ids.clone(); images.len()];
            for tokens in self.model.generate(pixels, &prompts, &options)? {
                let text = self.text.decode(&tokens, true)?.trim().to_string();
                captions.push(Caption { text, tokens });
            }
        }
        Ok(captions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_starts_once() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones/opt-tiny");
        let text = TextEncoder::open(&folder, TextEncoding::new(16, 1)).unwrap();
        let start = text.id_of("</s>").unwrap();
        assert_eq!(text.encode_plain("").unwrap(), [start]);
        let prompt = text.encode_plain("a photo of").unwrap();
        assert_eq!(prompt.iter().filter(|token| **token == start).count(), 1, "{prompt:?}");
    }
}
