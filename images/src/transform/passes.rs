//! The two passes of resampling, over rows of interleaved RGB: sums of 32 bits, which are the same on every
//! machine whatever instructions it has.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::lines::{Across, BLOCK, Rows};
use super::taps::{Tap, Taps, weights_of};

/// Which instructions there are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Passes {
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    Portable,
}

impl Default for Passes {
    fn default() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            return Self::Avx2(avx2);
        }
        Self::Portable
    }
}

impl Passes {
    /// One row out of those of `tap`.
    pub(super) fn down(self, rows: Rows<'_>, tap: Tap<'_>, precision: u32, line: &mut [u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) if line.len() >= BLOCK => avx2::down(avx2, rows, tap, precision, line),
            _ => down(rows, tap, precision, line),
        }
    }

    /// Rows out of lines.
    pub(super) fn across(self, taps: &Taps, across: Across<'_>) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2::across(avx2, taps, across),
            Self::Portable => across_portable(taps, across),
        }
    }
}

fn down(rows: Rows<'_>, tap: Tap<'_>, precision: u32, line: &mut [u8]) {
    let weights = tap.pairs.iter().flat_map(|pair| weights_of(*pair)).take(tap.count);
    for (index, line) in line.chunks_mut(BLOCK).enumerate() {
        let mut sums = [1i32 << (precision - 1); BLOCK];
        for (row, weight) in (tap.first..).zip(weights.clone()) {
            let row = &rows.bytes[row * rows.stride + index * BLOCK..];
            sums.iter_mut().zip(&row[..line.len()]).for_each(|(sum, byte)| *sum += weight * i32::from(*byte));
        }
        line.iter_mut().zip(sums).for_each(|(byte, sum)| *byte = clipped(sum, precision));
    }
}

fn across_portable(taps: &Taps, across: Across<'_>) {
    let (width, first) = (taps.iter().len(), taps.pixels().start);
    for (line, row) in across.lines.into_iter().zip(across.rows.chunks_exact_mut(width)) {
        for (tap, pixel) in taps.iter().zip(row) {
            let weights = tap.pairs.iter().flat_map(|pair| weights_of(*pair)).take(tap.count);
            let mut sums = [1i32 << (taps.precision() - 1); 3];
            for (source, weight) in line[3 * (tap.first - first)..].chunks_exact(3).zip(weights) {
                sums.iter_mut().zip(source).for_each(|(sum, byte)| *sum += weight * i32::from(*byte));
            }
            let [red, green, blue] = sums.map(|sum| clipped(sum, taps.precision()));
            *pixel = u32::from_le_bytes([red, green, blue, 0]);
        }
    }
}

/// A sum's whole part as a level.
fn clipped(sum: i32, precision: u32) -> u8 {
    // Within a byte.
    (sum >> precision).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::lines::{MARGIN, ROWS};
    use crate::transform::resampling::Resampling;
    use blip2_random::KeyedRng;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut random = KeyedRng::new(1, "noise", &[bytes as u64]);
        // Extremes reach the limits of a level.
        (0..bytes).map(|_| [0, 255, random.below(256) as u8][random.below(3) as usize]).collect()
    }

    fn rows_of(passes: Passes, taps: [&Taps; 2], source: Rows<'_>) -> Vec<u32> {
        let [down, across] = taps;
        let (width, length) = (across.iter().len(), 3 * across.pixels().len());
        let (mut lines, mut all) =
            (vec![vec![0; length + 3 * across.weights_each() + MARGIN]; ROWS], Vec::new());
        let taps: Vec<_> = down.iter().collect();
        for four in taps.chunks(ROWS) {
            let from = Rows { bytes: &source.bytes[3 * across.pixels().start..], ..source };
            let each = lines.iter_mut().zip(four);
            each.for_each(|(line, tap)| passes.down(from, *tap, down.precision(), &mut line[..length]));
            let mut rows = vec![0; ROWS * width];
            let lines = std::array::from_fn(|line| lines[line].as_slice());
            passes.across(across, Across { lines, rows: &mut rows });
            all.extend_from_slice(&rows[..four.len() * width]);
        }
        all
    }

    #[test]
    fn vector_instructions_change_no_bit() {
        let of = |resampling: Resampling, pixels, part, results| {
            let mut taps = Taps::default();
            taps.set(resampling.kernel().unwrap(), pixels, part, results);
            taps
        };
        for (resampling, width, height, size) in [
            (Resampling::Bicubic, 501, 375, [224, 224]),
            (Resampling::Lanczos, 77, 90, [33, 150]),
            (Resampling::Box, 13, 11, [5, 3]),
            (Resampling::Bilinear, 2, 1, [9, 6]),
        ] {
            let bytes = noise(3 * width * height);
            let source = Rows { bytes: &bytes, stride: 3 * width };
            let across = of(resampling, width, width as f64 / 8.0..width as f64 * 0.9, size[0]);
            let down = of(resampling, height, 0.0..height as f64, size[1]);
            let plain = rows_of(Passes::Portable, [&down, &across], source);
            assert!(rows_of(Passes::default(), [&down, &across], source) == plain, "{resampling:?}");
            let has = |level| plain.iter().any(|pixel| pixel & 255 == level);
            assert!(width < 100 || has(0) && has(255), "levels are clipped");
        }
    }
}
