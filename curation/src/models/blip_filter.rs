//! Whether texts and their image match: the probability that BLIP's ITM head gives.

use std::path::Path;

use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_evaluation::image_transform::ImageTransform;
use blip2_evaluation::tokenizer::open_tokenizer;
use blip2_model::blip::BlipRetrieval;
use blip2_model_files::image_processor::ImageProcessor;
use blip2_tensors::device::read_back::floats;
use burn::tensor::Device;
use burn::tensor::activation::softmax;

use super::text_batches::{batches, put};
use crate::error::{CurationError, Result};
use crate::scored::ScoredText;
use crate::scoring::{CuratedImage, ModelTimes, Scorer, timed};

/// Tokens of a text that the filter reads.
const FILTER_LENGTH: usize = 35;
/// The token that the filter has in the place of a text's first.
const FILTER_START: &str = "[ENC]";

struct Filter {
    model: BlipRetrieval,
    transform: ImageTransform,
    text: TextEncoder,
    start: u32,
    text_batch: usize,
    device: Device,
}

/// Opens a `BlipForImageTextRetrieval` folder.
pub(super) fn open(folder: &Path, text_batch: usize, device: &Device) -> Result<Box<dyn Scorer>> {
    let model = BlipRetrieval::open(folder, device)?;
    let length = FILTER_LENGTH.min(model.config().text.max_positions);
    let text = open_tokenizer(folder, TextEncoding::new(length, model.config().pad_token))?;
    // BERT's vocabulary is followed by the start tokens of decoder and encoder.
    let start =
        text.id_of(FILTER_START).or_else(|| text.vocab_size().try_into().ok().map(|size: u32| size + 1));
    let start = start.filter(|start| (*start as usize) < model.config().text.vocab).ok_or_else(|| {
        let folder = folder.display();
        CurationError::Configuration(format!("curation.models.itm: `{folder}` has no token {FILTER_START}"))
    })?;
    let size = model.config().vision.image_size;
    let processor = ImageProcessor::read(folder, ImageProcessor::blip2(size))?;
    let transform = ImageTransform::new(&processor);
    Ok(Box::new(Filter { model, transform, text, start, text_batch, device: device.clone() }))
}

impl Scorer for Filter {
    fn scores(
        &self,
        images: &[CuratedImage],
        texts: &[Vec<ScoredText>],
        times: &mut ModelTimes,
    ) -> Result<Vec<Option<f32>>> {
        let seen = timed(&mut times.images, || {
            let pixels = self.transform.tensor(images.iter().map(|image| &image.image), &self.device)?;
            Ok(self.model.look(&self.model.image_features(pixels)?))
        })?;
        timed(&mut times.texts, || {
            let mut scores = vec![None; texts.iter().map(Vec::len).sum()];
            for batch in batches(texts, &self.text, Some(self.start), self.text_batch, &self.device) {
                let logits = self.model.match_logits_of(&seen, &batch.images, batch.ids, batch.mask)?;
                put(&mut scores, &batch.texts, &floats(softmax(logits, 1).narrow(1, 1, 1))?);
            }
            Ok(scores)
        })
    }
}
