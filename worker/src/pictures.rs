//! Pictures as a model's folder says that they are prepared.

use std::path::Path;

use blip2_dataset::{DatasetError, EvalTransform, Resampling, ShortestEdgeTransform};
use blip2_model::files::image_processor::{self, Fitting, ImageProcessor};
use burn::tensor::{Device, Tensor};
use image::RgbImage;

use crate::config::ModelSettings;
use crate::convert::of_encoder;
use crate::error::Result;
use crate::evaluate::pixels;

/// How pictures are prepared in evaluation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PictureTransform {
    /// Squeezed into the square.
    Squeeze(EvalTransform),
    /// The central square is cut out.
    CentralSquare(ShortestEdgeTransform),
}

impl PictureTransform {
    pub(crate) fn new(processor: &ImageProcessor) -> Self {
        let (mean, std) = statistics(processor);
        let resampling = resampling(processor);
        match processor.fitting {
            Fitting::Squeeze { side: size } => Self::Squeeze(EvalTransform { size, mean, std, resampling }),
            Fitting::CentralSquare { shorter: shortest_edge, side: size } => {
                Self::CentralSquare(ShortestEdgeTransform { size, shortest_edge, mean, std, resampling })
            }
        }
    }

    fn apply(&self, image: &RgbImage) -> Result<Vec<f32>, DatasetError> {
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

    /// Pictures as the model sees them, `[b, 3, S, S]`.
    ///
    /// # Errors
    /// A picture that cannot be resized.
    pub(crate) fn tensor<'a>(
        &self,
        images: impl Iterator<Item = &'a RgbImage>,
        device: &Device,
    ) -> Result<Tensor<4>> {
        pixels(images.map(|image| self.apply(image)), self.side(), device)
    }
}

/// Means and deviations of the channels.
pub(crate) fn statistics(processor: &ImageProcessor) -> ([f32; 3], [f32; 3]) {
    (processor.mean.map(|mean| mean as f32), processor.deviation.map(|deviation| deviation as f32))
}

/// How pixels are computed.
pub(crate) fn resampling(processor: &ImageProcessor) -> Resampling {
    match processor.resampling {
        image_processor::Resampling::Nearest => Resampling::Nearest,
        image_processor::Resampling::Lanczos => Resampling::Lanczos,
        image_processor::Resampling::Bilinear => Resampling::Bilinear,
        image_processor::Resampling::Bicubic => Resampling::Bicubic,
        image_processor::Resampling::Box => Resampling::Box,
        image_processor::Resampling::Hamming => Resampling::Hamming,
    }
}

/// How pictures of `side` pixels are prepared for the image encoder of `settings`: its folder's numbers, in the squares that
/// BLIP-2 makes of pictures for every encoder.
///
/// # Errors
/// A setting of the folder that is not supported, or another size than its configuration has.
pub(crate) fn image_processor(settings: &ModelSettings, side: usize) -> Result<ImageProcessor> {
    let own = ImageProcessor::blip2(side);
    let path = Path::new(&settings.image_encoder);
    let read = match settings.image_size {
        0 => ImageProcessor::read(path, own.clone()),
        _ => ImageProcessor::read_resized(path, own.clone()),
    };
    let read = read.map_err(|error| of_encoder(settings, error))?;
    Ok(ImageProcessor { fitting: own.fitting, ..read })
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_dataset::{CLIP_MEAN, CLIP_STD};

    #[test]
    fn published_numbers_are_those_of_training_to_the_bit() {
        assert_eq!(statistics(&ImageProcessor::blip2(8)), (CLIP_MEAN, CLIP_STD));
        let transform = PictureTransform::new(&ImageProcessor::clip(8));
        assert_eq!(transform, PictureTransform::CentralSquare(ShortestEdgeTransform::new(8)));
        let transform = PictureTransform::new(&ImageProcessor::blip2(8));
        assert_eq!(transform, PictureTransform::Squeeze(EvalTransform::new(8)));
    }

    #[test]
    fn an_encoders_numbers_are_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let settings = |image_size| ModelSettings {
            image_encoder: folder.path().display().to_string(),
            image_size,
            ..ModelSettings::default()
        };
        let write = |text: &str| {
            std::fs::write(folder.path().join("preprocessor_config.json"), text).unwrap();
        };
        write(
            r#"{"image_mean": 0.5, "image_std": 0.25, "size": {"shortest_edge": 8}, "do_center_crop": true}"#,
        );
        let read = image_processor(&settings(0), 8).unwrap();
        assert_eq!(statistics(&read), ([0.5; 3], [0.25; 3]));
        assert_eq!(read.fitting, Fitting::Squeeze { side: 8 });
        assert_eq!(image_processor(&settings(16), 16).unwrap().fitting.side(), 16);
        let error = image_processor(&settings(0), 16).unwrap_err();
        assert!(error.to_string().contains("preprocessor_config.json") && error.exit_code() == 78, "{error}");
    }
}
