//! An image encoder over samples.

use blip2_dataset::corpus::samples::Sample;
use blip2_model::vision::ImageEncoder;
use burn::tensor::{Device, Tensor};
use image::RgbImage;

use crate::error::Result;
use crate::image_transform::ImageTransform;

/// Images or texts computed at a time.
pub(crate) const BATCH: usize = 64;

/// An image encoder with the way in which its images are prepared.
pub struct SampleEncoder {
    encoder: ImageEncoder,
    transform: ImageTransform,
    device: Device,
}

impl SampleEncoder {
    /// `encoder` on `device`, for images that `transform` prepares.
    pub fn new(encoder: ImageEncoder, transform: ImageTransform, device: Device) -> Self {
        Self { encoder, transform, device }
    }

    /// The same way to an `encoder` on the same device, for images of the same size.
    pub fn with_encoder(&self, encoder: ImageEncoder) -> Self {
        Self { encoder, transform: self.transform.clone(), device: self.device.clone() }
    }

    /// The encoder.
    pub fn encoder(&self) -> &ImageEncoder {
        &self.encoder
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// `image_features` of some images, `[images, tokens, width]`.
    ///
    /// # Errors
    /// An image that cannot be prepared, a device that fails.
    pub fn features(&self, images: &[RgbImage]) -> Result<Tensor<3>> {
        let batches = images.chunks(BATCH).map(|images| {
            let pixels = self.transform.tensor(images.iter(), &self.device)?;
            Ok(self.encoder.forward(pixels)?)
        });
        Ok(Tensor::cat(batches.collect::<Result<Vec<_>>>()?, 0))
    }

    /// `image_features` of the samples in batches, `[b, tokens, width]` each; the batches come one after the
    /// other.
    ///
    /// # Errors
    /// Each is an error where an image cannot be prepared or the device fails.
    pub fn image_features(&self, samples: &[&Sample]) -> impl Iterator<Item = Result<Tensor<3>>> {
        samples.chunks(BATCH).map(|samples| {
            let images = samples.iter().map(|sample| &sample.image);
            let pixels = self.transform.tensor(images, &self.device)?;
            Ok(self.encoder.forward(pixels)?)
        })
    }
}
