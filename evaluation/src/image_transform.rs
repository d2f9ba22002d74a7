//! Images as a model's folder says that they are prepared.

use blip2_images::ImageError;
use blip2_images::transform::{EvalTransform, Resampling, ShortestEdgeTransform};
use blip2_model_files::image_processor::{self, Fitting, ImageProcessor};
use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;

use crate::error::Result;

/// How images are prepared in evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageTransform {
    /// Squeezed into the square.
    Squeeze(EvalTransform),
    /// The central square is cut out.
    CentralSquare(ShortestEdgeTransform),
}

impl ImageTransform {
    /// As `processor` says.
    pub fn new(processor: &ImageProcessor) -> Self {
        let (mean, std) = statistics(processor);
        let resampling = resampling(processor);
        match processor.fitting {
            Fitting::Squeeze { side: size } => Self::Squeeze(EvalTransform { size, mean, std, resampling }),
            Fitting::CentralSquare { shorter: shortest_edge, side: size } => {
                Self::CentralSquare(ShortestEdgeTransform { size, shortest_edge, mean, std, resampling })
            }
        }
    }

    fn apply(&self, image: &RgbImage) -> Result<Vec<f32>, ImageError> {
        match self {
            Self::Squeeze(transform) => transform.apply(image),
            Self::CentralSquare(transform) => transform.apply(image),
        }
    }

    fn side(&self) -> usize {
        match self {
            Self::Squeeze(transform) => transform.size,
            Self::CentralSquare(transform) => transform.size,
        }
    }

    /// Images as the model sees them, `[b, 3, S, S]`.
    ///
    /// # Errors
    /// An image that cannot be resized.
    pub fn tensor<'a>(
        &self,
        images: impl Iterator<Item = &'a RgbImage>,
        device: &Device,
    ) -> Result<Tensor<4>> {
        let (mut rows, mut pixels, side) = (0, Vec::new(), self.side());
        for image in images {
            pixels.extend(self.apply(image)?);
            rows += 1;
        }
        Ok(Tensor::from_data(TensorData::new(pixels, [rows, 3, side, side]), device))
    }
}

/// Means and deviations of the channels.
pub fn statistics(processor: &ImageProcessor) -> ([f32; 3], [f32; 3]) {
    (processor.mean.map(|mean| mean as f32), processor.deviation.map(|deviation| deviation as f32))
}

/// How pixels are computed.
pub fn resampling(processor: &ImageProcessor) -> Resampling {
    match processor.resampling {
        image_processor::Resampling::Nearest => Resampling::Nearest,
        image_processor::Resampling::Lanczos => Resampling::Lanczos,
        image_processor::Resampling::Bilinear => Resampling::Bilinear,
        image_processor::Resampling::Bicubic => Resampling::Bicubic,
        image_processor::Resampling::Box => Resampling::Box,
        image_processor::Resampling::Hamming => Resampling::Hamming,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_images::transform::{CLIP_MEAN, CLIP_STD};

    #[test]
    fn published_numbers_are_those_of_training_to_the_bit() {
        assert_eq!(statistics(&ImageProcessor::blip2(8)), (CLIP_MEAN, CLIP_STD));
        let transform = ImageTransform::new(&ImageProcessor::clip(8));
        assert_eq!(transform, ImageTransform::CentralSquare(ShortestEdgeTransform::new(8)));
        let transform = ImageTransform::new(&ImageProcessor::blip2(8));
        assert_eq!(transform, ImageTransform::Squeeze(EvalTransform::new(8)));
    }
}
