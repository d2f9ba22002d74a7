//! Resizing as Pillow does it.

use image::RgbImage;

use super::crop::{Part, Rectangle};
use super::resampler::{Resampler, Source};
use super::resampling::Resampling;
use crate::error::{ImageError, Result};

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
    let mut resized = Vec::with_capacity(3 * size[0] * size[1]);
    let source =
        Source { pixels: image.as_raw(), size: [image.width(), image.height()].map(|side| side as usize) };
    let take = |row: &[u32]| resized.extend(row.iter().flat_map(|pixel| rgb(*pixel)));
    resize_rows(&mut Resampler::default(), source, crop.divided_by(1), size, resampling, take)?;
    Ok(resized)
}

/// Red, green and blue of a pixel as the resampler gives it.
pub(super) fn rgb(pixel: u32) -> [u8; 3] {
    let [red, green, blue, _] = pixel.to_le_bytes();
    [red, green, blue]
}

/// Pillow's antialiased resizing of the crop; `take` is given each row from the top. As in torchvision, which
/// crops before it resizes, pixels outside the crop have no influence; of a crop between pixels those that
/// it touches have.
pub(super) fn resize_rows(
    resampler: &mut Resampler,
    source: Source<'_>,
    crop: Part,
    size: [usize; 2],
    resampling: Resampling,
    take: impl FnMut(&[u32]),
) -> Result<()> {
    let failed = |reason: String| ImageError { reason: format!("the picture cannot be resized: {reason}") };
    let [width, height] = source.size;
    if size.contains(&0) || size.iter().any(|side| u32::try_from(*side).is_err()) {
        return Err(failed(format!("{}x{} is no size", size[0], size[1])));
    }
    let inside =
        |from: f64, length: f64, side: usize| from >= 0.0 && length > 0.0 && from + length <= side as f64;
    if !inside(crop.left, crop.width, width) || !inside(crop.top, crop.height, height) {
        return Err(failed(format!("{crop:?} is no part of {width}x{height}")));
    }
    resampler.resample(source, crop, size, resampling, take);
    Ok(())
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

#[cfg(test)]
mod tests {
    use fast_image_resize::images::{CroppedImage, Image, ImageRef};
    use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

    use super::*;
    use blip2_random::KeyedRng;

    /// What another implementation of Pillow's resizing gives.
    fn other(source: Source<'_>, crop: Part, size: [usize; 2], resampling: Resampling) -> Vec<u8> {
        let algorithm = ResizeAlg::Convolution(match resampling {
            Resampling::Nearest => FilterType::Box,
            Resampling::Lanczos => FilterType::Lanczos3,
            Resampling::Bilinear => FilterType::Bilinear,
            Resampling::Bicubic => FilterType::CatmullRom,
            Resampling::Box => FilterType::Box,
            Resampling::Hamming => FilterType::Hamming,
        });
        let algorithm = if resampling == Resampling::Nearest { ResizeAlg::Nearest } else { algorithm };
        let [width, height] = source.size.map(|side| side as u32);
        let image = ImageRef::new(width, height, source.pixels, PixelType::U8x3).unwrap();
        let [left, top] = [crop.left.floor(), crop.top.floor()];
        let right = (crop.left + crop.width).ceil() - left;
        let bottom = (crop.top + crop.height).ceil() - top;
        let touched =
            CroppedImage::new(&image, left as u32, top as u32, right as u32, bottom as u32).unwrap();
        let mut resized = Image::new(size[0] as u32, size[1] as u32, PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
        let options = options.crop(crop.left - left, crop.top - top, crop.width, crop.height);
        Resizer::new().resize(&touched, &mut resized, &options).unwrap();
        resized.into_vec()
    }

    /// One resampler for images of all sizes, so that nothing of one is left in the next.
    #[test]
    fn another_implementation_gives_the_same_bytes() {
        let mut random = KeyedRng::new(3, "sizes", &[]);
        let mut resampler = Resampler::default();
        for round in 0..240 {
            let resampling = [
                Resampling::Bicubic,
                Resampling::Bicubic,
                Resampling::Lanczos,
                Resampling::Bilinear,
                Resampling::Box,
                Resampling::Hamming,
                Resampling::Nearest,
            ][round % 7];
            let mut side = |most: u64| 1 + random.below(most) as usize;
            let (source_size, size) = ([side(150), side(150)], [side(99), side(99)]);
            let pixels: Vec<u8> = (0..3 * source_size[0] * source_size[1])
                .map(|_| [0, 255, random.below(256) as u8, random.below(256) as u8][random.below(4) as usize])
                .collect();
            let source = Source { pixels: &pixels, size: source_size };
            // Edges between pixels, as of an image that was decoded at an eighth.
            let mut edges = |side: usize| {
                let from = random.below(8 * side as u64);
                let length = 1 + random.below(8 * side as u64 - from);
                match round % 3 {
                    0 => [0.0, side as f64],
                    _ => [from as f64 / 8.0, length as f64 / 8.0],
                }
            };
            let ([left, width], [top, height]) = (edges(source_size[0]), edges(source_size[1]));
            let crop = Part { left, top, width, height };
            let mut got = Vec::new();
            let take = |row: &[u32]| got.extend(row.iter().flat_map(|pixel| rgb(*pixel)));
            resize_rows(&mut resampler, source, crop, size, resampling, take).unwrap();
            let want = other(source, crop, size, resampling);
            assert!(got == want, "{resampling:?} {crop:?} of {source_size:?} to {size:?}");
        }
    }

    #[test]
    fn parts_outside_of_the_image_are_refused() {
        let source = Source { pixels: &[0; 12], size: [2, 2] };
        let refused = |part: Part, size: [usize; 2]| {
            resize_rows(&mut Resampler::default(), source, part, size, Resampling::Bicubic, |_| ()).is_err()
        };
        let whole = Part { left: 0.0, top: 0.0, width: 2.0, height: 2.0 };
        assert!(!refused(whole, [3, 3]) && refused(whole, [0, 3]));
        assert!(
            refused(Part { left: 0.5, ..whole }, [3, 3]) && refused(Part { height: 0.0, ..whole }, [3, 3])
        );
        assert!(refused(Part { top: -1.0, ..whole }, [3, 3]));
    }
}
