//! Bytes of pixels to planes, and to the numbers that a model sees.

/// Channel means of CLIP's normalisation.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];

/// Channel standard deviations of CLIP's normalisation.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Bytes of images `[…, 3, plane]` as the model sees them, `(x / 255 - mean) / std` in f32: what a device
/// computes from a batch.
pub fn normalised(pixels: &[u8], plane: usize, mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
    let levels = levels(mean, std);
    let planes = pixels.chunks(plane.max(1)).zip(levels.iter().cycle());
    planes.flat_map(|(plane, level)| plane.iter().map(|byte| level[usize::from(*byte)])).collect()
}

/// Three planes of a square that are filled row by row.
pub(super) struct Planes<'a> {
    /// What is left of red, green and blue.
    planes: [std::slice::ChunksExactMut<'a, u8>; 3],
    mirror: bool,
}

impl<'a> Planes<'a> {
    /// Planes of `size` by `size` bytes in `out`; rows are mirrored or not.
    pub(super) fn new(out: &'a mut [u8], size: usize, mirror: bool) -> Self {
        let (red, rest) = out.split_at_mut(size * size);
        let (green, blue) = rest.split_at_mut(size * size);
        Self { planes: [red, green, blue].map(|plane| plane.chunks_exact_mut(size)), mirror }
    }

    /// The next row: red, green and blue of a pixel from the lowest byte on. Rows beyond the last are lost.
    pub(super) fn put(&mut self, row: &[u32]) {
        for (channel, plane) in self.planes.iter_mut().enumerate() {
            let Some(plane) = plane.next() else { return };
            // The channel's byte alone is wanted.
            let level = |pixel: &u32| (pixel >> (8 * channel)) as u8;
            match self.mirror {
                true => plane.iter_mut().rev().zip(row).for_each(|(out, pixel)| *out = level(pixel)),
                false => plane.iter_mut().zip(row).for_each(|(out, pixel)| *out = level(pixel)),
            }
        }
    }
}

/// A square of interleaved RGB as three planes.
pub(super) fn planes_of(pixels: &[u8], size: usize, out: &mut [u8]) {
    for (channel, plane) in out.chunks_exact_mut(size * size).enumerate() {
        plane.iter_mut().zip(pixels.chunks_exact(3)).for_each(|(out, pixel)| *out = pixel[channel]);
    }
}

/// Mirrors a square of interleaved RGB.
pub(super) fn mirrored(pixels: &mut [u8], size: usize) {
    for row in pixels.chunks_exact_mut(3 * size) {
        row.reverse();
        row.chunks_exact_mut(3).for_each(<[u8]>::reverse);
    }
}

/// The value of every byte in each channel.
fn levels(mean: [f32; 3], std: [f32; 3]) -> [[f32; 256]; 3] {
    std::array::from_fn(|channel| {
        std::array::from_fn(|byte| (byte as f32 / 255.0 - mean[channel]) / std[channel])
    })
}

/// Interleaved bytes to planar floats: `(x / 255 - mean) / std`.
pub(super) fn normalise(pixels: &[u8], mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
    let plane = pixels.len() / 3;
    let levels = levels(mean, std);
    let mut planes = vec![0.0; pixels.len()];
    for (out, (channel, level)) in planes.chunks_mut(plane.max(1)).zip(levels.iter().enumerate()) {
        for (value, pixel) in out.iter_mut().zip(pixels.chunks_exact(3)) {
            *value = level[usize::from(pixel[channel])];
        }
    }
    planes
}
