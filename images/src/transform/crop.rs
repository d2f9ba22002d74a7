//! Which part of an image is taken, and how much of it has to be decoded for that.

use blip2_random::KeyedRng;
use image::RgbImage;

/// Aspect ratios of a random crop.
const CROP_RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

/// Pixels, each way, that a reduced image keeps for every pixel of the result: bicubic then still has
/// something to average, and the difference to the full image stays small.
const REDUCED_MARGIN: f64 = 1.5;

/// Draws of a random crop before the central one is taken.
const CROP_TRIES: u32 = 10;

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// Part of an image, whose edges may lie between pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Rectangle {
    pub(super) fn whole(image: &RgbImage) -> Self {
        Self { left: 0, top: 0, width: image.width(), height: image.height() }
    }

    /// The same part of an image that was decoded at one `divisor`-th of its size.
    pub(super) fn divided_by(self, divisor: u32) -> Part {
        let part = |side: u32| f64::from(side) / f64::from(divisor);
        Part {
            left: part(self.left),
            top: part(self.top),
            width: part(self.width),
            height: part(self.height),
        }
    }
}

/// How many times smaller an image may be decoded so that its crop still has at least [`REDUCED_MARGIN`]
/// times `size` pixels each way: 1, 2, 4 or 8.
pub(super) fn reduction(crop: Rectangle, size: usize) -> u32 {
    let shorter = f64::from(crop.width.min(crop.height));
    let wanted = REDUCED_MARGIN * size as f64;
    [8, 4, 2].into_iter().find(|divisor| shorter >= f64::from(*divisor) * wanted).unwrap_or(1)
}

/// torchvision's `RandomResizedCrop`: ten draws of area and aspect ratio, then the largest central crop
/// within the ratios. `libm` keeps the draws equal on every platform.
pub(super) fn random_crop(width: u32, height: u32, scale: [f64; 2], rng: &mut KeyedRng) -> Rectangle {
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
pub(super) fn central_crop(width: u32, height: u32) -> Rectangle {
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
