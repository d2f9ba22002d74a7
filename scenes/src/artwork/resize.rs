//! Drawings made smaller or larger, in whole numbers, so that every machine finds the same pixels.

use super::sprite::Sprite;

/// Opacity and the colours multiplied by it, each 0 to 255 x 255.
type Weighted = [u64; 4];

/// The drawing with so many pixels: a triangular filter as wide as what becomes one pixel.
pub(super) fn resize(sprite: &Sprite, width: u32, height: u32) -> Sprite {
    let weighted = sprite.pixels.iter().map(|[r, g, b, alpha]| {
        let of = |channel: u8| u64::from(channel) * u64::from(*alpha);
        [of(*r), of(*g), of(*b), 255 * u64::from(*alpha)]
    });
    let columns = Taps::of(sprite.width, width);
    let rows = Taps::of(sprite.height, height);
    let weighted: Vec<Weighted> = weighted.collect();
    let narrowed: Vec<Weighted> = (0..sprite.height as usize)
        .flat_map(|y| {
            let line = &weighted[y * sprite.width as usize..][..sprite.width as usize];
            columns.0.iter().map(|taps| taps.mean(|x| line[x]))
        })
        .collect();
    let wide = width as usize;
    let pixels = rows.0.iter().flat_map(|taps| (0..wide).map(|x| taps.mean(|y| narrowed[y * wide + x])));
    Sprite { width, height, pixels: pixels.map(unweighted).collect() }
}

fn unweighted([r, g, b, alpha]: Weighted) -> [u8; 4] {
    // `alpha` is 255 times the opacity, and no channel exceeds it.
    let of = |channel: u64| ((255 * channel + alpha / 2) / alpha.max(1)).min(255) as u8;
    [of(r), of(g), of(b), ((alpha + 127) / 255) as u8]
}

/// For each pixel of a side, from which pixels of the old side it is made.
struct Taps(Vec<Tap>);

struct Tap {
    first: usize,
    weights: Vec<u64>,
}

impl Taps {
    fn of(old: u32, new: u32) -> Self {
        let (old, new) = (u64::from(old), u64::from(new));
        // Distances in units of 1 / (2 new) of an old pixel.
        let reach = 2 * old.max(new);
        Self(
            (0..new)
                .map(|i| {
                    let weight =
                        |j: u64| reach.saturating_sub(((2 * j + 1) * new).abs_diff((2 * i + 1) * old));
                    let first = (0..old).find(|j| weight(*j) > 0).unwrap_or(0);
                    let weights = (first..old).map(weight).take_while(|weight| *weight > 0).collect();
                    Tap { first: first as usize, weights }
                })
                .collect(),
        )
    }
}

impl Tap {
    fn mean(&self, at: impl Fn(usize) -> Weighted) -> Weighted {
        let (mut sum, mut weights) = ([0; 4], 0);
        for (place, weight) in (self.first..).zip(&self.weights) {
            let value = at(place);
            for (sum, value) in sum.iter_mut().zip(value) {
                *sum += weight * value;
            }
            weights += weight;
        }
        sum.map(|sum| (sum + weights / 2) / weights.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_colour_stays_one_colour() {
        let sprite = Sprite { width: 7, height: 5, pixels: vec![[200, 100, 3, 255]; 35] };
        for (width, height) in [(3, 2), (7, 5), (20, 11), (1, 1)] {
            let resized = resize(&sprite, width, height);
            assert_eq!(resized.pixels, vec![[200, 100, 3, 255]; (width * height) as usize]);
        }
        assert_eq!(resize(&sprite, 7, 5), sprite);
    }

    #[test]
    fn what_is_transparent_lends_no_colour() {
        let pixels = vec![[0, 255, 0, 255], [255, 0, 255, 0], [0, 255, 0, 255], [255, 0, 255, 0]];
        let half = resize(&Sprite { width: 4, height: 1, pixels }, 2, 1);
        assert!(half.pixels.iter().all(|[r, g, b, _]| [*r, *g, *b] == [0, 255, 0]), "{half:?}");
        assert!(half.pixels.iter().all(|pixel| (100..156).contains(&pixel[3])), "{half:?}");
    }
}
