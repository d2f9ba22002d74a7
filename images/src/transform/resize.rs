//! Resizing as Pillow does it.

use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{CropBox, FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer, SrcCropping};
use image::RgbImage;

use super::crop::Rectangle;
use crate::error::{ImageError, Result};

/// How pixels between those of an image are computed, as Pillow calls it; antialiased, but for the nearest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resampling {
    /// The nearest pixel.
    Nearest,
    /// Lanczos' window of three.
    Lanczos,
    /// A triangle.
    Bilinear,
    /// Cubic, a = -0.5: CLIP's and BLIP-2's.
    #[default]
    Bicubic,
    /// The mean of a box.
    Box,
    /// Hamming's window.
    Hamming,
}

impl Resampling {
    fn algorithm(self) -> ResizeAlg {
        ResizeAlg::Convolution(match self {
            Self::Nearest => return ResizeAlg::Nearest,
            Self::Lanczos => FilterType::Lanczos3,
            Self::Bilinear => FilterType::Bilinear,
            Self::Bicubic => FilterType::CatmullRom,
            Self::Box => FilterType::Box,
            Self::Hamming => FilterType::Hamming,
        })
    }
}

/// Interleaved RGB.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) pixels: &'a [u8],
    /// Width, height.
    pub(super) size: [u32; 2],
}

/// The crop resized to `size` (width, height), interleaved RGB. Pixels outside the crop have no influence.
pub(super) fn resize(image: &RgbImage, crop: Rectangle, size: [usize; 2]) -> Result<Vec<u8>> {
    resize_by(Resampling::default(), image, crop, size)
}

pub(super) fn resize_by(
    resampling: Resampling,
    image: &RgbImage,
    crop: Rectangle,
    size: [usize; 2],
) -> Result<Vec<u8>> {
    let mut resized = vec![0; 3 * size[0] * size[1]];
    let source = Source { pixels: image.as_raw(), size: [image.width(), image.height()] };
    resize_into(&mut Resizer::new(), source, crop.divided_by(1), size, resampling, &mut resized)?;
    Ok(resized)
}

/// Pillow's antialiased resizing of the crop. As in torchvision, which crops before it resizes, pixels
/// outside the crop have no influence; of a crop between pixels those that it touches have.
pub(super) fn resize_into(
    resizer: &mut Resizer,
    source: Source<'_>,
    crop: CropBox,
    size: [usize; 2],
    resampling: Resampling,
    out: &mut [u8],
) -> Result<()> {
    let failed = |reason: String| ImageError { reason: format!("the picture cannot be resized: {reason}") };
    let side = |side: usize| u32::try_from(side).ok().filter(|side| *side > 0);
    let (Some(width), Some(height)) = (side(size[0]), side(size[1])) else {
        return Err(failed(format!("{}x{} is no size", size[0], size[1])));
    };
    let image = ImageRef::new(source.size[0], source.size[1], source.pixels, PixelType::U8x3)
        .map_err(|error| failed(error.to_string()))?;
    // The whole pixels that the crop touches, and the crop within them.
    let (left, top) = (crop.left.floor(), crop.top.floor());
    let right = (crop.left + crop.width).ceil().min(f64::from(source.size[0]));
    let bottom = (crop.top + crop.height).ceil().min(f64::from(source.size[1]));
    // Not negative and within the image.
    let touched =
        CroppedImage::new(&image, left as u32, top as u32, (right - left) as u32, (bottom - top) as u32)
            .map_err(|error| failed(error.to_string()))?;
    let inner = CropBox {
        left: crop.left - left,
        top: crop.top - top,
        width: crop.width.min(right - crop.left),
        height: crop.height.min(bottom - crop.top),
    };
    let mut resized = Image::from_slice_u8(width, height, out, PixelType::U8x3)
        .map_err(|error| failed(error.to_string()))?;
    let mut options = ResizeOptions::new().resize_alg(resampling.algorithm()).use_alpha(false);
    options.cropping = SrcCropping::Crop(inner);
    resizer.resize(&touched, &mut resized, &options).map_err(|error| failed(error.to_string()))
}

/// The image made smaller, its shorter side `side` pixels long, in the same proportions.
///
/// # Errors
/// [`ImageError`] if the image or the result has no pixels.
pub fn shrink(image: &RgbImage, side: u32) -> Result<RgbImage> {
    let (width, height) = image.dimensions();
    let short = width.min(height);
    let scaled = |length: u32| {
        // At most `length`, for `side` is below the shorter side.
        ((u64::from(length) * u64::from(side) + u64::from(short) / 2) / u64::from(short.max(1))) as u32
    };
    let (new_width, new_height) = (scaled(width), scaled(height));
    let whole = Rectangle { left: 0, top: 0, width, height };
    let pixels = resize(image, whole, [new_width as usize, new_height as usize])?;
    RgbImage::from_raw(new_width, new_height, pixels).ok_or_else(|| ImageError {
        reason: "the picture cannot be resized: its length is not that of its size".to_owned(),
    })
}
