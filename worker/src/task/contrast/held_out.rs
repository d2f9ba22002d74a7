//! The contrast task's losses and recalls on held-out rows.

use blip2_evaluation::held_out::{HeldOut, HeldOutRow};
use blip2_evaluation::metrics::retrieval::recalls_of_captions;
use blip2_evaluation::retrieval::best_of_queries;
use blip2_model::objectives::contrast::{self, Contrast, GlobalBatch, Side, SlotContext};
use blip2_random::KeyedRng;
use blip2_tensors::device::read_back;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::loss::LossValue;
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::model::{ContrastTask, LOSSES};
use crate::error::Result;
use crate::frozen_models::FrozenModels;
use crate::sum::context::StepValues;
use crate::sum::unit_buffers::UnitBuffers;

/// What a draw of a held-out row's negatives is for.
const NEGATIVE_IMAGE: &str = "negative image of a held-out row";
const NEGATIVE_TEXT: &str = "negative text of a held-out row";
/// Images whose similarities with all texts are computed at a time.
const IMAGES: usize = 64;
/// Shares of the images whose text is among the first, and of the texts whose image is.
const IMAGE_TO_TEXT: [&str; 3] =
    ["eval_image_to_text_r@1", "eval_image_to_text_r@5", "eval_image_to_text_r@10"];
const TEXT_TO_IMAGE: [&str; 3] =
    ["eval_text_to_image_r@1", "eval_text_to_image_r@5", "eval_text_to_image_r@10"];

/// The texts and features of all held-out rows.
struct Gathered {
    global: GlobalBatch,
    /// Loss of each unit, summed over its rows and over its predicted tokens.
    matching: f64,
    captioning: f64,
}

impl ContrastTask {
    /// Matching and captioning losses, summed, then the features: float64 and float32 values, little-endian.
    /// Negatives are drawn within the unit, by a key that does not depend on the step.
    pub(in crate::task) fn unit(
        &self,
        frozen: &FrozenModels,
        unit: usize,
        rows: &[HeldOutRow],
        features: Tensor<3>,
    ) -> Result<Vec<u8>> {
        let (ids, mask) = HeldOutRow::tokens_of(rows);
        let batch = contrast::SlotBatch {
            image_features: features.clone(),
            ids: ids.clone(),
            mask: mask.clone(),
            text_length: self.settings.text_length,
        };
        let forward = self.model.features(batch, &mut Dropout::off(), Tape::whole())?;
        let image_feats = read_back::floats(forward.image_feats.clone())?;
        let text_feats = read_back::floats(forward.text_feat.clone())?;
        let mut told = Vec::new();
        let global = GlobalBatch { ids, mask, image_feats, text_feats, ..self.no_rows() };
        let smoothing = self.settings.label_smoothing;
        let on_device = global.features(&frozen.device)?;
        let contrast = on_device.contrast(self.model.temperature()?, smoothing)?;
        let draw = |side, purpose: &str| -> Vec<usize> {
            let drawn = (0..rows.len()).map(|row| {
                let parts = [unit as u64, row as u64];
                let uniform = KeyedRng::new(self.seed, purpose, &parts).uniform();
                Contrast::draw(&contrast.negative_weights(side, row), row, uniform)
            });
            drawn.collect()
        };
        let images: Vec<i32> = draw(Side::Image, NEGATIVE_IMAGE).into_iter().map(|row| row as i32).collect();
        let images = Tensor::<1, Int>::from_data(TensorData::new(images, [rows.len()]), &frozen.device);
        let context = SlotContext {
            global: &global,
            features: &on_device,
            contrast: &contrast,
            first_row: 0,
            negative_images: features.select(0, images),
            negative_texts: &draw(Side::Text, NEGATIVE_TEXT),
            mode: self.mode.into(),
            smoothing,
            decoder_start: frozen.decoder_start,
        };
        let loss = self.model.slot_loss(forward, &context, &mut Dropout::off())?;
        // Means over the unit's triples and tokens: as sums they add up over units of different sizes.
        let [matching, captioning] = LossValue::read_all([loss.matching, loss.captioning])?;
        told.extend((matching * (3 * rows.len()) as f64).to_le_bytes());
        told.extend((captioning * global.caption_tokens() as f64).to_le_bytes());
        told.extend_from_slice(bytemuck::cast_slice(&global.image_feats));
        told.extend_from_slice(bytemuck::cast_slice(&global.text_feats));
        Ok(told)
    }

    fn gathered(&self, held_out: &HeldOut, told: &mut UnitBuffers<'_>) -> Result<Gathered> {
        let mut gathered = Gathered { global: self.no_rows(), matching: 0.0, captioning: 0.0 };
        for (unit, rows) in held_out.units().enumerate() {
            gathered.matching += told.float64(unit)?;
            gathered.captioning += told.float64(unit)?;
            let global = &mut gathered.global;
            global.image_feats.extend(told.floats(unit, rows.len() * global.queries * global.embed_dim)?);
            global.text_feats.extend(told.floats(unit, rows.len() * global.embed_dim)?);
            let (ids, mask) = HeldOutRow::tokens_of(rows);
            global.ids.extend(ids);
            global.mask.extend(mask);
        }
        Ok(gathered)
    }

    /// Losses and recalls of all held-out rows.
    pub(in crate::task) fn values(
        &self,
        frozen: &FrozenModels,
        held_out: &HeldOut,
        told: &mut UnitBuffers<'_>,
    ) -> Result<StepValues> {
        let all = self.gathered(held_out, told)?;
        let (global, rows) = (&all.global, held_out.rows.len());
        let similarity = similarities(global, &frozen.device)?;
        let temperature = self.model.temperature()?;
        let scaled = similarity.iter().map(|similarity| similarity / temperature).collect();
        let contrast = Contrast::new(scaled, rows, self.settings.label_smoothing).loss;
        let matching = all.matching / (3 * rows) as f64;
        let captioning = all.captioning / global.caption_tokens().max(1) as f64;
        let losses = [contrast + matching + captioning, contrast, matching, captioning];
        let mut values: StepValues = LOSSES.iter().map(|loss| loss.held_out).zip(losses).collect();
        let captions: Vec<&str> = held_out.rows.iter().map(|row| row.caption.as_str()).collect();
        if let Some(recalls) = recalls_of_captions(&similarity, &captions)? {
            values.extend(IMAGE_TO_TEXT.into_iter().zip(recalls.image_to_text.shares()));
            values.extend(TEXT_TO_IMAGE.into_iter().zip(recalls.text_to_image.shares()));
        }
        Ok(values)
    }
}

/// The best of each image's queries with each text, `[N, N]`, image-major.
fn similarities(global: &GlobalBatch, device: &Device) -> Result<Vec<f32>> {
    let (rows, queries, width) = (global.rows(), global.queries, global.embed_dim);
    let texts = TensorData::new(global.text_feats.clone(), [rows, width]);
    let texts = Tensor::<2>::from_data(texts, device);
    let mut similarity = Vec::with_capacity(rows * rows);
    for images in global.image_feats.chunks(IMAGES * queries * width) {
        let count = images.len() / (queries * width);
        let images = TensorData::new(images.to_vec(), [count, queries, width]);
        let images = Tensor::<3>::from_data(images, device);
        similarity.extend(read_back::floats(best_of_queries(images, texts.clone()))?);
    }
    Ok(similarity)
}
