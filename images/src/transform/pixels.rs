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

/// A square of interleaved RGB as three planes, mirrored or not.
pub(super) fn planes_of(pixels: &[u8], size: usize, mirror: bool, out: &mut [u8]) {
    let (red, rest) = out.split_at_mut(size * size);
    let (green, blue) = rest.split_at_mut(size * size);
    let planes =
        red.chunks_exact_mut(size).zip(green.chunks_exact_mut(size)).zip(blue.chunks_exact_mut(size));
    for (row, ((red, green), blue)) in pixels.chunks_exact(size * 3).zip(planes) {
        let pixels = row.chunks_exact(3);
        let outs = red.iter_mut().zip(green).zip(blue);
        let put = |(pixel, ((red, green), blue)): (&[u8], ((&mut u8, &mut u8), &mut u8))| {
            (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
        };
        match mirror {
            true => pixels.rev().zip(outs).for_each(put),
            false => pixels.zip(outs).for_each(put),
        }
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
