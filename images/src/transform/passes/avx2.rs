//! The passes with AVX2: weights are multiplied in pairs, and the products of a pair summed.

use std::arch::x86_64::__m256i;

use pulp::x86::V3;

use crate::transform::lines::{Across, BLOCK, ROWS, Rows};
use crate::transform::taps::{Tap, Taps};

/// Out of 16 bytes, those of each channel of pixels 0 and 1, and of pixels 2 and 3, side by side in 16 bits
/// each.
const PIXELS_0_1: [i8; 16] = [0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1];
const PIXELS_2_3: [i8; 16] = [6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1];

/// One row out of those of `tap`, at least [`BLOCK`] bytes long.
pub(super) fn down(avx2: V3, rows: Rows<'_>, tap: Tap<'_>, precision: u32, line: &mut [u8]) {
    avx2.vectorize(
        #[inline(always)]
        || {
            // The last block may lie over the one before it.
            let last = line.len() - BLOCK;
            for at in (0..last).step_by(BLOCK).chain([last]) {
                line[at..at + BLOCK].copy_from_slice(&block(avx2, rows, tap, precision, at));
            }
        },
    );
}

/// The bytes from `at` on of a row.
#[inline(always)]
fn block(avx2: V3, rows: Rows<'_>, tap: Tap<'_>, precision: u32, at: usize) -> [u8; BLOCK] {
    let zero = avx2.avx._mm256_setzero_si256();
    let mut sums = [avx2.avx._mm256_set1_epi32(1 << (precision - 1)); 4];
    let row = |row: usize| bytes(&rows.bytes[(tap.first + row) * rows.stride + at..]);
    for (index, pair) in tap.pairs[..tap.count.div_ceil(2)].iter().enumerate() {
        // Behind the last row is none: it has the weight 0, whatever it is.
        let (upper, lower) = (row(2 * index), row((2 * index + 1).min(tap.count - 1)));
        let weights = avx2.avx._mm256_set1_epi32(*pair);
        let halves =
            [avx2.avx2._mm256_unpacklo_epi8(upper, lower), avx2.avx2._mm256_unpackhi_epi8(upper, lower)];
        for (half, sums) in halves.into_iter().zip(sums.chunks_exact_mut(2)) {
            let wide =
                [avx2.avx2._mm256_unpacklo_epi8(half, zero), avx2.avx2._mm256_unpackhi_epi8(half, zero)];
            for (wide, sum) in wide.into_iter().zip(sums) {
                *sum = avx2.avx2._mm256_add_epi32(*sum, avx2.avx2._mm256_madd_epi16(wide, weights));
            }
        }
    }
    let shift = avx2.sse2._mm_cvtsi32_si128(precision as i32);
    let [a, b, c, d] = sums.map(|sum| avx2.avx2._mm256_sra_epi32(sum, shift));
    let [low, high] = [avx2.avx2._mm256_packs_epi32(a, b), avx2.avx2._mm256_packs_epi32(c, d)];
    pulp::cast(avx2.avx2._mm256_packus_epi16(low, high))
}

/// Rows out of lines.
pub(super) fn across(avx2: V3, taps: &Taps, across: Across<'_>) {
    let Across { lines, rows } = across;
    avx2.vectorize(
        #[inline(always)]
        || {
            let (width, first) = (taps.iter().len(), taps.pixels().start);
            let (upper, lower) = rows.split_at_mut(2 * width);
            let (row_0, row_1) = upper.split_at_mut(width);
            let (row_2, row_3) = lower.split_at_mut(width);
            let pixels = row_0.iter_mut().zip(row_1).zip(row_2).zip(row_3);
            for (tap, (((pixel_0, pixel_1), pixel_2), pixel_3)) in taps.iter().zip(pixels) {
                let at = 3 * (tap.first - first);
                [*pixel_0, *pixel_1, *pixel_2, *pixel_3] = four(avx2, lines, at, tap, taps.precision());
            }
        },
    );
}

/// A pixel of each line, whose weights are of the bytes from `at` on.
#[inline(always)]
fn four(avx2: V3, lines: [&[u8]; ROWS], at: usize, tap: Tap<'_>, precision: u32) -> [u32; ROWS] {
    let halves = |half: [i8; 16]| -> __m256i { pulp::cast([half, half]) };
    let (first_two, last_two) = (halves(PIXELS_0_1), halves(PIXELS_2_3));
    let mut sums = [avx2.avx._mm256_set1_epi32(1 << (precision - 1)); 2];
    // Four pixels at a time.
    for (index, pairs) in tap.pairs.chunks_exact(2).enumerate() {
        let at = at + 12 * index;
        let weights = [pairs[0], pairs[1]].map(|pair| avx2.avx._mm256_set1_epi32(pair));
        for (sum, lines) in sums.iter_mut().zip([[lines[0], lines[1]], [lines[2], lines[3]]]) {
            let pixels: __m256i = pulp::cast(lines.map(|line| half(&line[at..])));
            for (place, weights) in [first_two, last_two].into_iter().zip(weights) {
                let wide = avx2.avx2._mm256_shuffle_epi8(pixels, place);
                *sum = avx2.avx2._mm256_add_epi32(*sum, avx2.avx2._mm256_madd_epi16(wide, weights));
            }
        }
    }
    let shift = avx2.sse2._mm_cvtsi32_si128(precision as i32);
    let [upper, lower] = sums.map(|sum| avx2.avx2._mm256_sra_epi32(sum, shift));
    let words = avx2.avx2._mm256_packs_epi32(upper, lower);
    // In each half of the register a pixel of the upper two lines, then one of the lower two.
    let [first, third, _, _, second, fourth, _, _]: [u32; 8] =
        pulp::cast(avx2.avx2._mm256_packus_epi16(words, words));
    [first, second, third, fourth]
}

#[inline(always)]
fn bytes(from: &[u8]) -> __m256i {
    let mut bytes = [0u8; BLOCK];
    bytes.copy_from_slice(&from[..BLOCK]);
    pulp::cast(bytes)
}

#[inline(always)]
fn half(from: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&from[..16]);
    bytes
}
