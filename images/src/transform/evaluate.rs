//! The two transforms of evaluation, in which nothing is drawn.

use image::RgbImage;

use super::crop::Rectangle;
use super::pixels::{CLIP_MEAN, CLIP_STD, normalise};
use super::resampling::Resampling;
use super::resize::{resize, resize_by};
use crate::error::{ImageError, Result};

/// The whole image squeezed into a square, as BLIP-2 evaluates.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalTransform {
    /// Side of the result, pixels.
    pub size: usize,
    /// Channel means.
    pub mean: [f32; 3],
    /// Channel standard deviations.
    pub std: [f32; 3],
    /// How pixels are computed.
    pub resampling: Resampling,
}

/// Shortest edge resized, then the central square, as CLIP evaluates.
#[derive(Debug, Clone, PartialEq)]
pub struct ShortestEdgeTransform {
    /// Side of the result, pixels.
    pub size: usize,
    /// Length of the shortest edge once it is resized, pixels; at least `size`.
    pub shortest_edge: usize,
    /// Channel means.
    pub mean: [f32; 3],
    /// Channel standard deviations.
    pub std: [f32; 3],
    /// How pixels are computed.
    pub resampling: Resampling,
}

impl EvalTransform {
    /// With CLIP's normalisation, bicubic.
    pub fn new(size: usize) -> Self {
        Self { size, mean: CLIP_MEAN, std: CLIP_STD, resampling: Resampling::default() }
    }

    /// The image as `[3, size, size]`.
    ///
    /// # Errors
    /// [`ImageError`] if the image or the result has no pixels.
    pub fn apply(&self, image: &RgbImage) -> Result<Vec<f32>> {
        let pixels = resize_by(self.resampling, image, Rectangle::whole(image), [self.size; 2])?;
        Ok(normalise(&pixels, self.mean, self.std))
    }

    /// The same as bytes, before they are normalised.
    ///
    /// # Errors
    /// As [`EvalTransform::apply`].
    pub fn bytes(&self, image: &RgbImage) -> Result<Vec<u8>> {
        let pixels = resize(image, Rectangle::whole(image), [self.size; 2])?;
        Ok((0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3).copied()).collect())
    }
}

impl ShortestEdgeTransform {
    /// With CLIP's normalisation, bicubic, without a margin.
    pub fn new(size: usize) -> Self {
        let (mean, std) = (CLIP_MEAN, CLIP_STD);
        Self { size, shortest_edge: size, mean, std, resampling: Resampling::default() }
    }

    /// The image as `[3, size, size]`.
    ///
    /// # Errors
    /// [`ImageError`] if the image or the result has no pixels.
    pub fn apply(&self, image: &RgbImage) -> Result<Vec<f32>> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        // The longer edge is rounded down, as `transformers` and torchvision do.
        let [wide, high] = match width.min(height) {
            0 => [0, 0],
            short => [self.shortest_edge * width / short, self.shortest_edge * height / short],
        };
        let resized = resize_by(self.resampling, image, Rectangle::whole(image), [wide, high])?;
        let Some(margins) = wide.checked_sub(self.size).zip(high.checked_sub(self.size)) else {
            let reason = format!("a square of {} pixels is cut out of {wide}x{high}", self.size);
            return Err(ImageError { reason });
        };
        let (left, top) = (margins.0 / 2, margins.1 / 2);
        let row = |y: usize| {
            let start = ((top + y) * wide + left) * 3;
            &resized[start..start + self.size * 3]
        };
        let square: Vec<u8> = (0..self.size).flat_map(row).copied().collect();
        Ok(normalise(&square, self.mean, self.std))
    }
}
