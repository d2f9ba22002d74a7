//! Whether texts match a picture, by BLIP's filter.

use std::path::Path;

use blip2_dataset::{EvalTransform, TextEncoder, TextEncoding};
use blip2_model::blip::BlipRetrieval;
use blip2_model::host::floats;
use burn::tensor::Device;

use super::batches::by_length;
use super::pixels::pixels;
use super::readings::Readings;
use super::settings::refuse;
use super::times::{PhaseTimes, timed};
use super::{CuratedPicture, CurationModelSettings};
use crate::error::Result;

/// Longest text in tokens, as the reference has it.
const TEXT_LENGTH: usize = 35;
/// The token that texts start with where they are matched.
const ENCODER_START: &str = "[ENC]";

/// BLIP's filter and its tokenizer.
pub(super) struct MatchScorer {
    model: BlipRetrieval,
    text: TextEncoder,
    start: u32,
    text_batch: usize,
    device: Device,
}

impl MatchScorer {
    pub(super) fn open(settings: &CurationModelSettings, device: &Device) -> Result<Self> {
        let folder = Path::new(&settings.itm);
        let model = BlipRetrieval::open(folder, device)?;
        let config = model.config();
        let length = TEXT_LENGTH.min(config.text.max_positions);
        let text = TextEncoder::open(folder, TextEncoding::new(length, config.pad_token))?;
        // Published folders have BERT's tokenizer, which does not know the two tokens that BLIP puts behind its words.
        let start = text.id_of(ENCODER_START).unwrap_or(config.start_token + 1);
        if start as usize >= config.text.vocab {
            let reason = format!("the model has no token for {ENCODER_START}: add it to the tokenizer");
            return refuse("itm", &reason);
        }
        Ok(Self { model, text, start, text_batch: settings.text_batch, device: device.clone() })
    }

    /// The probability that each reading matches.
    pub(super) fn score(
        &self,
        pictures: &[CuratedPicture],
        readings: &Readings,
        times: &mut PhaseTimes,
    ) -> Result<Vec<f32>> {
        let mut spent = std::time::Duration::ZERO;
        let found = timed(&mut spent, &self.device, || self.probabilities(pictures, readings, times))?;
        times.itm += spent;
        Ok(found)
    }

    fn probabilities(
        &self,
        pictures: &[CuratedPicture],
        readings: &Readings,
        times: &mut PhaseTimes,
    ) -> Result<Vec<f32>> {
        let images: Vec<_> = pictures.iter().map(|picture| &picture.image).collect();
        let size = self.model.config().vision.image_size;
        let transform = EvalTransform::new(size);
        let pixels = pixels(&images, size, &self.device, |image| transform.apply(image))?;
        let seen = self.model.look(&self.model.image_features(pixels)?);
        let (pairs, of_readings) = readings.distinct_pairs();
        let tokens = pairs.iter().map(|(_, text)| self.tokens(text));
        let tokens: Vec<Vec<u32>> = tokens.collect::<Result<_>>()?;
        times.texts_read += tokens.len() as u64;
        let mut found = vec![0.0; pairs.len()];
        let pad = self.model.config().pad_token;
        for batch in by_length(&tokens, self.text_batch, pad, &self.device, times) {
            let own: Vec<usize> = batch.places.iter().map(|place| pairs[*place].0).collect();
            let logits = floats(self.model.match_logits_of(&seen, &own, batch.ids, batch.mask)?)?;
            for (place, logits) in batch.places.iter().zip(logits.chunks_exact(2)) {
                found[*place] = 1.0 / (1.0 + (logits[0] - logits[1]).exp());
            }
        }
        Ok(of_readings.into_iter().map(|pair| found[pair]).collect())
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.text.encode_plain(text)?;
        match ids.first_mut() {
            Some(first) => *first = self.start,
            None => ids.push(self.start),
        }
        Ok(ids)
    }
}
