//! Pictures to normalised tensors: the training crop and the two evaluation transforms.
//!
//! Resizing is bicubic (a = -0.5) with antialiasing in 8 bits, as PIL's. All results are planar `[3, S, S]` in f32.

use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use crate::error::{DatasetError, Result};
use crate::random::KeyedRng;

/// Channel means of CLIP's normalisation.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];

/// Channel standard deviations of CLIP's normalisation.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Aspect ratios of a random crop.
const CROP_RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

/// Draws of a random crop before the central one is taken.
const CROP_TRIES: u32 = 10;

/// Random resized crop, mirroring, normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainTransform {
    /// Side of the result, pixels.
    pub size: usize,
    /// Smallest and largest share of the picture's area that a crop keeps.
    pub crop_scale: [f64; 2],
    /// Mirror half of the pictures.
    pub flip: bool,
    /// Channel means.
    pub mean: [f32; 3],
    /// Channel standard deviations.
    pub std: [f32; 3],
}

/// The whole picture squeezed into a square, as BLIP-2 evaluates.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalTransform {
    /// Side of the result, pixels.
    pub size: usize,
    /// Channel means.
    pub mean: [f32; 3],
    /// Channel standard deviations.
    pub std: [f32; 3],
}

/// Shortest edge resized to `size`, then the central square, as CLIP evaluates.
#[derive(Debug, Clone, PartialEq)]
pub struct ShortestEdgeTransform {
    /// Side of the result, pixels.
    pub size: usize,
    /// Channel means.
    pub mean: [f32; 3],
    /// Channel standard deviations.
    pub std: [f32; 3],
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rectangle {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl TrainTransform {
    /// With CLIP's normalisation.
    pub fn new(size: usize, crop_scale: [f64; 2], flip: bool) -> Self {
        Self { size, crop_scale, flip, mean: CLIP_MEAN, std: CLIP_STD }
    }

    /// The picture as `[3, size, size]`; crop and mirroring are drawn from `rng`.
    ///
    /// # Errors
    /// [`DatasetError::Image`] if the picture or the result has no pixels.
    pub fn apply(&self, image: &RgbImage, rng: &mut KeyedRng) -> Result<Vec<f32>> {
        let crop = random_crop(image.width(), image.height(), self.crop_scale, rng);
        let mirror = self.flip && rng.uniform() < 0.5;
        let mut pixels = resize(image, crop, [self.size; 2])?;
        if mirror {
            mirror_rows(&mut pixels, self.size);
        }
        Ok(normalise(&pixels, self.mean, self.std))
    }
}

impl EvalTransform {
    /// With CLIP's normalisation.
    pub fn new(size: usize) -> Self {
        Self { size, mean: CLIP_MEAN, std: CLIP_STD }
    }

    /// The picture as `[3, size, size]`.
    ///
    /// # Errors
    /// [`DatasetError::Image`] if the picture or the result has no pixels.
    pub fn apply(&self, image: &RgbImage) -> Result<Vec<f32>> {
        let pixels = resize(image, Rectangle::whole(image), [self.size; 2])?;
        Ok(normalise(&pixels, self.mean, self.std))
    }
}

impl ShortestEdgeTransform {
    /// With CLIP's normalisation.
    pub fn new(size: usize) -> Self {
        Self { size, mean: CLIP_MEAN, std: CLIP_STD }
    }

    /// The picture as `[3, size, size]`.
    ///
    /// # Errors
    /// [`DatasetError::Image`] if the picture or the result has no pixels.
    pub fn apply(&self, image: &RgbImage) -> Result<Vec<f32>> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        // The longer edge is rounded down, as `transformers` and torchvision do.
        let [wide, high] = match width.min(height) {
            0 => [0, 0],
            short => [self.size * width / short, self.size * height / short],
        };
        let resized = resize(image, Rectangle::whole(image), [wide, high])?;
        let (left, top) = ((wide - self.size) / 2, (high - self.size) / 2);
        let row = |y: usize| {
            let start = ((top + y) * wide + left) * 3;
            &resized[start..start + self.size * 3]
        };
        let square: Vec<u8> = (0..self.size).flat_map(row).copied().collect();
        Ok(normalise(&square, self.mean, self.std))
    }
}

impl Rectangle {
    fn whole(image: &RgbImage) -> Self {
        Self { left: 0, top: 0, width: image.width(), height: image.height() }
    }
}

/// torchvision's `RandomResizedCrop`: ten draws of area and aspect ratio, then the largest central crop within the
/// ratios. `libm` keeps the draws equal on every platform.
fn random_crop(width: u32, height: u32, scale: [f64; 2], rng: &mut KeyedRng) -> Rectangle {
    let area = f64::from(width) * f64::from(height);
    let log_ratio = CROP_RATIO.map(libm::log);
    for _ in 0..CROP_TRIES {
        let target = area * (scale[0] + (scale[1] - scale[0]) * rng.uniform());
        let aspect = libm::exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * rng.uniform());
        // Float to integer saturates, so a wild setting cannot overflow.
        let crop_width = (target * aspect).sqrt().round_ties_even() as u32;
        let crop_height = (target / aspect).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            // Below `width` and `height`, so they fit.
            let top = rng.below(u64::from(height - crop_height) + 1) as u32;
            let left = rng.below(u64::from(width - crop_width) + 1) as u32;
            return Rectangle { left, top, width: crop_width, height: crop_height };
        }
    }
    central_crop(width, height)
}

/// The largest central rectangle whose aspect ratio is allowed.
fn central_crop(width: u32, height: u32) -> Rectangle {
    let ratio = f64::from(width) / f64::from(height);
    let (crop_width, crop_height) = if ratio < CROP_RATIO[0] {
        (width, (f64::from(width) / CROP_RATIO[0]).round_ties_even() as u32)
    } else if ratio > CROP_RATIO[1] {
        ((f64::from(height) * CROP_RATIO[1]).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    let (crop_width, crop_height) = (crop_width.clamp(1, width.max(1)), crop_height.clamp(1, height.max(1)));
    Rectangle {
        left: width.saturating_sub(crop_width) / 2,
        top: height.saturating_sub(crop_height) / 2,
        width: crop_width,
        height: crop_height,
    }
}

/// The crop resized to `size` (width, height), interleaved RGB. Pixels outside the crop have no influence.
fn resize(image: &RgbImage, crop: Rectangle, size: [usize; 2]) -> Result<Vec<u8>> {
    let failed =
        |reason: String| DatasetError::Image { reason: format!("the picture cannot be resized: {reason}") };
    let side = |side: usize| u32::try_from(side).ok().filter(|side| *side > 0);
    let (Some(width), Some(height)) = (side(size[0]), side(size[1])) else {
        return Err(failed(format!("{}x{} is no size", size[0], size[1])));
    };
    let source = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x3)
        .map_err(|error| failed(error.to_string()))?;
    let cropped = CroppedImage::new(&source, crop.left, crop.top, crop.width, crop.height)
        .map_err(|error| failed(error.to_string()))?;
    let mut resized = Image::new(width, height, PixelType::U8x3);
    let bicubic =
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).use_alpha(false);
    Resizer::new().resize(&cropped, &mut resized, &bicubic).map_err(|error| failed(error.to_string()))?;
    Ok(resized.into_vec())
}

/// The picture made smaller, its shorter side `side` pixels long, in the same proportions.
pub(crate) fn shrink(image: &RgbImage, side: u32) -> Result<RgbImage> {
    let (width, height) = image.dimensions();
    let short = width.min(height);
    let scaled = |length: u32| {
        // At most `length`, for `side` is below the shorter side.
        ((u64::from(length) * u64::from(side) + u64::from(short) / 2) / u64::from(short.max(1))) as u32
    };
    let (new_width, new_height) = (scaled(width), scaled(height));
    let whole = Rectangle { left: 0, top: 0, width, height };
    let pixels = resize(image, whole, [new_width as usize, new_height as usize])?;
    RgbImage::from_raw(new_width, new_height, pixels).ok_or_else(|| DatasetError::Image {
        reason: "the picture cannot be resized: its length is not that of its size".to_owned(),
    })
}

/// Mirrors every row of a square of interleaved RGB.
fn mirror_rows(pixels: &mut [u8], size: usize) {
    for row in pixels.chunks_exact_mut(size * 3) {
        for x in 0..size / 2 {
            let opposite = size - 1 - x;
            for channel in 0..3 {
                row.swap(x * 3 + channel, opposite * 3 + channel);
            }
        }
    }
}

/// Interleaved bytes to planar floats: `(x / 255 - mean) / std`.
fn normalise(pixels: &[u8], mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
    let plane = pixels.len() / 3;
    let mut planes = vec![0.0; pixels.len()];
    for channel in 0..3 {
        let level: [f32; 256] =
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean[channel]) / std[channel]);
        let out = &mut planes[channel * plane..(channel + 1) * plane];
        for (value, pixel) in out.iter_mut().zip(pixels.chunks_exact(3)) {
            *value = level[usize::from(pixel[channel])];
        }
    }
    planes
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn rng(sample: u64) -> KeyedRng {
        KeyedRng::new(1, "augment", &[1, sample])
    }

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 7 % 256) as u8, (y * 5 % 256) as u8, ((x + y) % 256) as u8])
        })
    }

    /// PIL's bicubic kernel and two rounded passes, written independently of the crate in use.
    fn reference_resize(image: &RgbImage, size: u32) -> RgbImage {
        fn kernel(x: f64) -> f64 {
            let x = x.abs();
            if x < 1.0 {
                (1.5 * x - 2.5) * x * x + 1.0
            } else if x < 2.0 {
                ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
            } else {
                0.0
            }
        }
        fn pass(image: &RgbImage, size: u32) -> RgbImage {
            let scale = f64::from(image.width()) / f64::from(size);
            let stretch = scale.max(1.0);
            RgbImage::from_fn(size, image.height(), |x, y| {
                let centre = (f64::from(x) + 0.5) * scale;
                let (mut sum, mut total) = ([0.0; 3], 0.0);
                for source in 0..image.width() {
                    let weight = kernel((f64::from(source) + 0.5 - centre) / stretch);
                    total += weight;
                    for (sum, value) in sum.iter_mut().zip(image.get_pixel(source, y).0) {
                        *sum += weight * f64::from(value);
                    }
                }
                Rgb(sum.map(|sum| (sum / total).round().clamp(0.0, 255.0) as u8))
            })
        }
        let transpose = |image: &RgbImage| {
            RgbImage::from_fn(image.height(), image.width(), |x, y| *image.get_pixel(y, x))
        };
        transpose(&pass(&transpose(&pass(image, size)), size))
    }

    #[test]
    fn evaluation_is_pil_bicubic() {
        for (width, height, size) in [(96, 60, 32), (20, 31, 48), (64, 64, 64)] {
            let image = gradient(width, height);
            let expected = reference_resize(&image, size);
            let actual = resize(&image, Rectangle::whole(&image), [size as usize; 2]).unwrap();
            let worst = actual.iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= 1, "{width}x{height} to {size}: off by {worst}");
        }
    }

    #[test]
    fn values_are_normalised_and_planar() {
        let image = RgbImage::from_pixel(4, 4, Rgb([255, 0, 51]));
        let pixels = EvalTransform::new(2).apply(&image).unwrap();
        assert_eq!(pixels.len(), 12);
        for (channel, value) in [1.0f32, 0.0, 0.2].into_iter().enumerate() {
            let expected = (value - CLIP_MEAN[channel]) / CLIP_STD[channel];
            assert!(pixels[channel * 4..channel * 4 + 4].iter().all(|pixel| (pixel - expected).abs() < 1e-6));
        }
    }

    #[test]
    fn training_is_a_function_of_its_key() {
        let image = gradient(80, 50);
        let transform = TrainTransform::new(32, [0.2, 1.0], true);
        let apply = |sample| transform.apply(&image, &mut rng(sample)).unwrap();
        assert_eq!(apply(3), apply(3));
        assert_ne!(apply(3), apply(4));
    }

    #[test]
    fn mirroring_reverses_rows() {
        let image = gradient(16, 16);
        let whole = |flip| TrainTransform { flip, ..TrainTransform::new(16, [1.0, 1.0], true) };
        let plain = EvalTransform::new(16).apply(&image).unwrap();
        let mut seen = [false; 2];
        for sample in 0..40 {
            if random_crop(16, 16, [1.0, 1.0], &mut rng(sample)) != Rectangle::whole(&image) {
                continue;
            }
            assert_eq!(whole(false).apply(&image, &mut rng(sample)).unwrap(), plain);
            let mirrored = whole(true).apply(&image, &mut rng(sample)).unwrap();
            let reversed: Vec<f32> = plain.chunks(16).flat_map(|row| row.iter().rev()).copied().collect();
            assert!(mirrored == plain || mirrored == reversed);
            seen[usize::from(mirrored == reversed)] = true;
        }
        assert_eq!(seen, [true; 2]);
    }

    #[test]
    fn crops_stay_inside_and_keep_their_area() {
        for sample in 0..500 {
            let crop = random_crop(300, 200, [0.5, 1.0], &mut rng(sample));
            assert!(crop.left + crop.width <= 300 && crop.top + crop.height <= 200);
            let share = f64::from(crop.width * crop.height) / 60_000.0;
            assert!((0.49..=1.0).contains(&share), "{share}");
            let ratio = f64::from(crop.width) / f64::from(crop.height);
            assert!((0.74..1.35).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn odd_shapes_fall_back_to_the_centre() {
        assert_eq!(central_crop(100, 10), Rectangle { left: 43, top: 0, width: 13, height: 10 });
        assert_eq!(central_crop(10, 100), Rectangle { left: 0, top: 43, width: 10, height: 13 });
        for (width, height) in [(1, 1), (1, 3000), (3000, 1), (2, 1)] {
            let image = gradient(width, height);
            let pixels = TrainTransform::new(8, [0.5, 1.0], true).apply(&image, &mut rng(0)).unwrap();
            assert_eq!(pixels.len(), 3 * 64);
            assert!(pixels.iter().all(|value| value.is_finite()));
            assert_eq!(EvalTransform::new(8).apply(&image).unwrap().len(), 3 * 64);
        }
    }

    #[test]
    fn outside_of_the_crop_has_no_influence() {
        let mut image = gradient(40, 40);
        let crop = Rectangle { left: 10, top: 10, width: 20, height: 20 };
        let before = resize(&image, crop, [7, 7]).unwrap();
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            if !(10..30).contains(&x) || !(10..30).contains(&y) {
                *pixel = Rgb([255, 0, 255]);
            }
        }
        assert_eq!(resize(&image, crop, [7, 7]).unwrap(), before);
    }

    #[test]
    fn shortest_edge_takes_the_central_square() {
        let image = gradient(64, 32);
        let pixels = ShortestEdgeTransform::new(32).apply(&image).unwrap();
        let middle = image::imageops::crop_imm(&image, 16, 0, 32, 32).to_image();
        assert_eq!(pixels, EvalTransform::new(32).apply(&middle).unwrap());
        assert!(ShortestEdgeTransform::new(8).apply(&RgbImage::new(0, 0)).is_err());
        assert!(EvalTransform::new(0).apply(&image).is_err());
    }
}
