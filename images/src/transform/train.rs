//! The training crop: drawn by the key, decoded as far as it is needed.

use std::time::{Duration, Instant};

use blip2_random::KeyedRng;

use super::crop::{random_crop, reduction};
use super::pixels::{Planes, mirrored, planes_of};
use super::rand_augment::rand_augment;
use super::resampler::{Resampler, Source};
use super::resampling::Resampling;
use super::resize::{resize_rows, rgb};
use crate::error::{ImageError, Result};
use crate::reduced::{DecodeScratch, decode_reduced};

/// Random resized crop and mirroring, and what else is done to pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainTransform {
    /// Side of the result, pixels.
    pub size: usize,
    /// Smallest and largest share of the image's area that a crop keeps.
    pub crop_scale: [f64; 2],
    /// Mirror half of the images.
    pub flip: bool,
    /// RandAugment of what the crop and the mirroring gave.
    pub rand_augment: bool,
    /// How pixels are computed.
    pub resampling: Resampling,
}

impl TrainTransform {
    /// A square of `size` pixels a side, bicubic.
    pub fn new(size: usize, crop_scale: [f64; 2], flip: bool) -> Self {
        Self { size, crop_scale, flip, rand_augment: false, resampling: Resampling::default() }
    }

    /// Writes the image as `[3, size, size]` bytes; what happens to it is drawn from `rng`. Of an encoded
    /// image that is much larger than needed, only as much is decoded as the crop asks for. Not normalised:
    /// see [`normalised`](super::normalised).
    ///
    /// # Errors
    /// [`ImageError`] if the image cannot be decoded, has more than `max_pixels`, or `out` has
    /// another length.
    pub fn apply(
        &self,
        encoded: &[u8],
        max_pixels: u64,
        rng: &mut KeyedRng,
        scratch: &mut ImageScratch,
        out: &mut [u8],
    ) -> Result<()> {
        if self.size == 0 || out.len() != 3 * self.size * self.size {
            let reason = format!("{} bytes do not hold a picture of {1}x{1}", out.len(), self.size);
            return Err(ImageError { reason });
        }
        let started = Instant::now();
        let mut drawn = None;
        let choose = |width: u32, height: u32| {
            let crop = random_crop(width, height, self.crop_scale, rng);
            drawn = Some((crop, self.flip && rng.uniform() < 0.5));
            reduction(crop, self.size)
        };
        let decoded = decode_reduced(encoded, max_pixels, choose, &mut scratch.decoder)?;
        scratch.times.decode += started.elapsed();
        let Some((crop, mirror)) = drawn else {
            return Err(ImageError { reason: "the picture's size is unknown".to_owned() });
        };
        let started = Instant::now();
        let source = Source {
            pixels: decoded.pixels,
            size: [decoded.width, decoded.height].map(|side| side as usize),
        };
        let part = crop.divided_by(decoded.divisor);
        let (resampler, size) = (&mut scratch.resampler, [self.size; 2]);
        if self.rand_augment {
            let square = &mut scratch.square;
            square.clear();
            let take = |row: &[u32]| square.extend(row.iter().flat_map(|pixel| rgb(*pixel)));
            resize_rows(resampler, source, part, size, self.resampling, take)?;
            if mirror {
                mirrored(square, self.size);
            }
            rand_augment(square, self.size, rng, &mut scratch.augmented);
            planes_of(square, self.size, out);
        } else {
            let mut planes = Planes::new(out, self.size, mirror);
            resize_rows(resampler, source, part, size, self.resampling, |row| planes.put(row))?;
        }
        scratch.times.transform += started.elapsed();
        Ok(())
    }
}

/// Working memory for the images of one thread: after the first few images nothing is allocated for pixels.
#[derive(Debug, Default)]
pub struct ImageScratch {
    decoder: DecodeScratch,
    resampler: Resampler,
    /// Interleaved, where more is done to it.
    square: Vec<u8>,
    augmented: Vec<u8>,
    /// Time spent, since the scratch was made or last asked.
    times: ImageTimes,
}

/// Where the time of images goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageTimes {
    /// Decoding.
    pub decode: Duration,
    /// Cropping, resizing, mirroring, ordering by channel.
    pub transform: Duration,
}

impl ImageScratch {
    /// Time spent since this was last asked.
    pub fn take_times(&mut self) -> ImageTimes {
        std::mem::take(&mut self.times)
    }
}
