//! The frozen image encoder for images of one size: a stage may have others than the run.

use blip2_dataset::loader::SlotBatch;
use blip2_evaluation::image_transform::statistics;
use blip2_model::vision::ImageEncoder;
use blip2_model_files::image_processor::ImageProcessor;
use burn::tensor::{Device, Tensor};
use bytes::Bytes;

use crate::error::{Result, WorkerError};
use crate::image_processor::image_processor;
use crate::open::for_images_of;
use crate::pixels::normalised_pixels;
use crate::settings::model::ModelSettings;

/// The frozen image encoder for images of one size, and how these are prepared. The weights are shared by all
/// sizes of a run; each has a position table of its own.
pub(crate) struct FrozenImages {
    pub(crate) encoder: ImageEncoder,
    /// How its images are prepared.
    pub(crate) processor: ImageProcessor,
    device: Device,
}

/// The images of a stage that has others than the run.
pub(crate) struct StageImages<'a> {
    /// The stage's number and name.
    pub(crate) stage: u32,
    pub(crate) name: &'a str,
    /// Their side in pixels.
    pub(crate) size: usize,
}

impl FrozenImages {
    /// An encoder as its folder has it, for images of the size that the setting `key` names in `model`.
    pub(crate) fn resized(
        encoder: ImageEncoder,
        model: &ModelSettings,
        key: &str,
        device: Device,
    ) -> Result<Self> {
        let encoder = for_images_of(encoder, key, model.image_size)?;
        let processor = image_processor(model, encoder.image_size())?;
        Ok(Self { encoder, processor, device })
    }

    /// An encoder that was made and not loaded.
    pub(crate) fn of(encoder: ImageEncoder, device: Device) -> Self {
        let processor = ImageProcessor::blip2(encoder.image_size());
        Self { encoder, processor, device }
    }

    /// The features of a slot, `[b, P, Dv]`.
    pub(crate) fn features(&self, slot: &SlotBatch) -> Result<Tensor<3>> {
        Ok(self.encoder.forward(self.pixels(slot)?)?)
    }

    /// The images of a slot as an encoder takes them, `[b, 3, size, size]`.
    pub(crate) fn pixels(&self, slot: &SlotBatch) -> Result<Tensor<4>> {
        let size = self.encoder.image_size();
        let rows = slot.samples.len();
        if slot.pixels.len() != rows * 3 * size * size {
            return Err(WorkerError::Protocol(format!(
                "slot {}: {} pixel values for {rows} pictures of {size}×{size}",
                slot.slot,
                slot.pixels.len()
            )));
        }
        Ok(self.pixels_of(slot.pixels.clone(), rows))
    }

    /// So many images' bytes as an encoder takes them.
    pub(crate) fn pixels_of(&self, pixels: Bytes, rows: usize) -> Tensor<4> {
        let shape = [rows, self.encoder.image_size()];
        normalised_pixels(pixels, shape, statistics(&self.processor), &self.device)
    }

    /// The features of so many images' pixels, `[rows, P, Dv]`.
    pub(crate) fn features_of(&self, pixels: Bytes, rows: usize) -> Result<Tensor<3>> {
        Ok(self.encoder.forward(self.pixels_of(pixels, rows))?)
    }

    /// The features of black images, `[rows, P, Dv]`.
    pub(crate) fn features_of_nothing(&self, rows: usize) -> Result<Tensor<3>> {
        let size = self.encoder.image_size();
        Ok(self.encoder.forward(Tensor::zeros([rows, 3, size, size], &self.device))?)
    }
}
