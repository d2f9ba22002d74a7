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
    avx2.vectorize(Down { avx2, rows, tap, precision, line });
}

/// As a type, because a closure is not compiled for the instructions of its caller.
struct Down<'a> {
    avx2: V3,
    rows: Rows<'a>,
    tap: Tap<'a>,
    precision: u32,
    line: &'a mut [u8],
}

impl pulp::NullaryFnOnce for Down<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { avx2, rows, tap, precision, line } = self;
        // The last block may lie over the one before it.
        let last = line.len() - BLOCK;
        let mut at = 0;
        while at < last {
            line[at..at + BLOCK].copy_from_slice(&block(avx2, rows, tap, precision, at));
            at += BLOCK;
        }
        line[last..].copy_from_slice(&block(avx2, rows, tap, precision, last));
    }
}

/// The bytes from `at` on of a row.
#[inline(always)]
fn block(avx2: V3, rows: Rows<'_>, tap: Tap<'_>, precision: u32, at: usize) -> [u8; BLOCK] {
    // Closures would be compiled for other instructions where they are not inlined: loops are written out.
    let zero = avx2.avx._mm256_setzero_si256();
    let half = avx2.avx._mm256_set1_epi32(1 << (precision - 1));
    let (mut a, mut b, mut c, mut d) = (half, half, half, half);
    for (index, pair) in tap.pairs[..tap.count.div_ceil(2)].iter().enumerate() {
        // Behind the last row is none: it has the weight 0, whatever it is.
        let (first, second) = (2 * index, (2 * index + 1).min(tap.count - 1));
        let upper = bytes(&rows.bytes[(tap.first + first) * rows.stride + at..]);
        let lower = bytes(&rows.bytes[(tap.first + second) * rows.stride + at..]);
        let weights = avx2.avx._mm256_set1_epi32(*pair);
        let low = avx2.avx2._mm256_unpacklo_epi8(upper, lower);
        let high = avx2.avx2._mm256_unpackhi_epi8(upper, lower);
        a = summed(avx2, a, avx2.avx2._mm256_unpacklo_epi8(low, zero), weights);
        b = summed(avx2, b, avx2.avx2._mm256_unpackhi_epi8(low, zero), weights);
        c = summed(avx2, c, avx2.avx2._mm256_unpacklo_epi8(high, zero), weights);
        d = summed(avx2, d, avx2.avx2._mm256_unpackhi_epi8(high, zero), weights);
    }
    let shift = avx2.sse2._mm_cvtsi32_si128(precision as i32);
    let (a, b) = (avx2.avx2._mm256_sra_epi32(a, shift), avx2.avx2._mm256_sra_epi32(b, shift));
    let (c, d) = (avx2.avx2._mm256_sra_epi32(c, shift), avx2.avx2._mm256_sra_epi32(d, shift));
    let (low, high) = (avx2.avx2._mm256_packs_epi32(a, b), avx2.avx2._mm256_packs_epi32(c, d));
    pulp::cast(avx2.avx2._mm256_packus_epi16(low, high))
}

/// `sum` and the products of pairs.
#[inline(always)]
fn summed(avx2: V3, sum: __m256i, pairs: __m256i, weights: __m256i) -> __m256i {
    avx2.avx2._mm256_add_epi32(sum, avx2.avx2._mm256_madd_epi16(pairs, weights))
}

/// Rows out of lines.
pub(super) fn across(avx2: V3, taps: &Taps, across: Across<'_>) {
    avx2.vectorize(Rowwise { avx2, taps, across });
}

struct Rowwise<'a> {
    avx2: V3,
    taps: &'a Taps,
    across: Across<'a>,
}

impl pulp::NullaryFnOnce for Rowwise<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { avx2, taps, across: Across { lines, rows } } = self;
        let (width, first) = (taps.iter().len(), taps.pixels().start);
        let (upper, lower) = rows.split_at_mut(2 * width);
        let (row_0, row_1) = upper.split_at_mut(width);
        let (row_2, row_3) = lower.split_at_mut(width);
        let pixels = row_0.iter_mut().zip(row_1).zip(row_2).zip(row_3);
        for (tap, (((pixel_0, pixel_1), pixel_2), pixel_3)) in taps.iter().zip(pixels) {
            let at = 3 * (tap.first - first);
            [*pixel_0, *pixel_1, *pixel_2, *pixel_3] = four(avx2, lines, at, tap, taps.precision());
        }
    }
}

/// A pixel of each line, whose weights are of the bytes from `at` on.
#[inline(always)]
fn four(avx2: V3, lines: [&[u8]; ROWS], at: usize, tap: Tap<'_>, precision: u32) -> [u32; ROWS] {
    let first_two: __m256i = pulp::cast([PIXELS_0_1, PIXELS_0_1]);
    let last_two: __m256i = pulp::cast([PIXELS_2_3, PIXELS_2_3]);
    let begin = avx2.avx._mm256_set1_epi32(1 << (precision - 1));
    let (mut upper, mut lower) = (begin, begin);
    // Four pixels at a time.
    for (index, pairs) in tap.pairs.chunks_exact(2).enumerate() {
        let at = at + 12 * index;
        let first = avx2.avx._mm256_set1_epi32(pairs[0]);
        let last = avx2.avx._mm256_set1_epi32(pairs[1]);
        let pixels: __m256i = pulp::cast([half(&lines[0][at..]), half(&lines[1][at..])]);
        upper = summed(avx2, upper, avx2.avx2._mm256_shuffle_epi8(pixels, first_two), first);
        upper = summed(avx2, upper, avx2.avx2._mm256_shuffle_epi8(pixels, last_two), last);
        let pixels: __m256i = pulp::cast([half(&lines[2][at..]), half(&lines[3][at..])]);
        lower = summed(avx2, lower, avx2.avx2._mm256_shuffle_epi8(pixels, first_two), first);
        lower = summed(avx2, lower, avx2.avx2._mm256_shuffle_epi8(pixels, last_two), last);
    }
    let shift = avx2.sse2._mm_cvtsi32_si128(precision as i32);
    let (upper, lower) = (avx2.avx2._mm256_sra_epi32(upper, shift), avx2.avx2._mm256_sra_epi32(lower, shift));
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
