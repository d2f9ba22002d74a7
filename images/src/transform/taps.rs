//! The weights by which the pixels of a line become those of another.

use std::ops::Range;

use super::resampling::Kernel;

/// Bits of a weight besides its sign.
const WEIGHT_BITS: u32 = 15;
/// Most bits behind the point: a sum of 32 bits has 8 of the result, and two for weights below 0 and above 1.
const MOST_PRECISION: u32 = 21;
/// Weights of a result are a multiple of so many, zeros behind those that it has.
const GROUP: usize = 4;

/// The weights of one axis, in fixed point as Pillow has them; its memory is used again for the next image.
#[derive(Debug, Default)]
pub(super) struct Taps {
    /// First pixel of each result, and how many it is made of.
    spans: Vec<(usize, usize)>,
    /// Two weights each, the first in the lower half.
    pairs: Vec<i32>,
    /// Pairs of a result.
    pairs_each: usize,
    /// Bits behind the point.
    precision: u32,
    /// The weights before they are rounded, those of a result one after the other.
    exact: Vec<f64>,
}

/// What a result is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tap<'a> {
    /// The first pixel.
    pub(super) first: usize,
    /// How many pixels; the weights behind theirs are zeros.
    pub(super) count: usize,
    /// Pairs of weights, the first in the lower half.
    pub(super) pairs: &'a [i32],
}

impl Taps {
    /// `results` pixels, at least one, out of `part` of a line of `pixels` pixels.
    pub(super) fn set(&mut self, kernel: Kernel, pixels: usize, part: Range<f64>, results: usize) {
        let scale = (part.end - part.start) / results as f64;
        let stretch = scale.max(1.0);
        let (radius, inverse) = (kernel.support * stretch, 1.0 / stretch);
        self.spans.clear();
        self.exact.clear();
        for result in 0..results {
            let centre = part.start + (result as f64 + 0.5) * scale;
            let from = (centre - radius).floor().max(0.0) as usize;
            let to = (centre + radius).ceil().min(pixels as f64) as usize;
            self.weigh(from..to, |pixel| (kernel.weight)((pixel as f64 - (centre - 0.5)) * inverse));
        }
        self.round();
    }

    /// Adds a result out of `pixels`, without those at either end that weigh nothing.
    fn weigh(&mut self, pixels: Range<usize>, weight: impl Fn(usize) -> f64) {
        let begin = self.exact.len();
        let (mut first, end) = (pixels.start, pixels.end);
        for pixel in pixels {
            let weight = weight(pixel);
            match first == pixel && weight == 0.0 {
                true => first += 1,
                false => self.exact.push(weight),
            }
        }
        while self.exact.len() > begin && self.exact.last() == Some(&0.0) {
            self.exact.pop();
        }
        let weights = &mut self.exact[begin..];
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        let first = first.min(end);
        self.spans.push((first, self.exact.len() - begin));
    }

    /// The weights with as many bits behind the point as the largest has room for.
    fn round(&mut self) {
        let largest = self.exact.iter().copied().fold(0.0, f64::max);
        let fills =
            |bits: &u32| (largest * f64::from(2u32 << bits)).round() >= f64::from(1u32 << WEIGHT_BITS);
        self.precision = (0..MOST_PRECISION).find(fills).unwrap_or(MOST_PRECISION);
        let one = f64::from(1u32 << self.precision);
        let most = self.spans.iter().map(|(_, count)| *count).max().unwrap_or(0);
        self.pairs_each = most.next_multiple_of(GROUP) / 2;
        self.pairs.clear();
        let mut exact = self.exact.as_slice();
        for (_, count) in &self.spans {
            let (weights, rest) = exact.split_at(*count);
            exact = rest;
            let pairs = self.pairs.len() + self.pairs_each;
            self.pairs.extend(weights.chunks(2).map(|two| {
                let bits = |weight: Option<&f64>| weight.map_or(0, |weight| (weight * one).round() as i16);
                pair([bits(two.first()), bits(two.get(1))])
            }));
            self.pairs.resize(pairs, 0);
        }
    }

    /// The pixels that results are made of.
    pub(super) fn pixels(&self) -> Range<usize> {
        let first = self.spans.first().map_or(0, |(first, _)| *first);
        first..self.spans.last().map_or(first, |(last, count)| last + count)
    }

    /// Weights of a result, the zeros behind them among them.
    pub(super) fn weights_each(&self) -> usize {
        2 * self.pairs_each
    }

    /// Bits behind the point, at least one.
    pub(super) fn precision(&self) -> u32 {
        self.precision
    }

    /// Each result in turn.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Tap<'_>> {
        let tap = |(index, (first, count)): (usize, &(usize, usize))| Tap {
            first: *first,
            count: *count,
            pairs: &self.pairs[index * self.pairs_each..][..self.pairs_each],
        };
        self.spans.iter().enumerate().map(tap)
    }
}

fn pair([low, high]: [i16; 2]) -> i32 {
    i32::from(low) & 0xffff | i32::from(high) << 16
}

/// Both weights of a pair.
pub(super) fn weights_of(pair: i32) -> [i32; 2] {
    [i32::from(pair as i16), pair >> 16]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::resampling::Resampling;

    fn taps(resampling: Resampling, pixels: usize, part: Range<f64>, results: usize) -> Taps {
        let mut taps = Taps::default();
        taps.set(resampling.kernel().unwrap(), pixels, part, results);
        taps
    }

    #[test]
    fn a_line_that_stays_as_it_is_is_made_of_single_pixels() {
        let taps = taps(Resampling::Bicubic, 5, 0.0..5.0, 5);
        let got: Vec<_> =
            taps.iter().map(|tap| (tap.first, tap.count, weights_of(tap.pairs[0])[0])).collect();
        assert_eq!(taps.precision(), 14);
        assert_eq!(got, [0, 1, 2, 3, 4].map(|pixel| (pixel, 1, 1 << 14)));
    }

    #[test]
    fn weights_add_up_to_one_and_stay_inside() {
        for (pixels, part, results) in [(500, 20.0..433.0, 224), (10, 0.25..9.5, 37), (90, 0.0..90.0, 3)] {
            let taps = taps(Resampling::Lanczos, pixels, part, results);
            assert_eq!(taps.iter().len(), results);
            for Tap { first, count, pairs } in taps.iter() {
                assert!(first + count <= pixels && count <= taps.weights_each());
                let weights: Vec<i32> = pairs.iter().flat_map(|pair| weights_of(*pair)).collect();
                assert!(weights[count..].iter().all(|weight| *weight == 0));
                let off = weights.iter().sum::<i32>() - (1 << taps.precision());
                assert!(off.unsigned_abs() as usize <= count, "{off}");
            }
        }
    }
}
