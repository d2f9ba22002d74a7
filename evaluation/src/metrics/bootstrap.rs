//! How sure a score is: the same score over images that are drawn again and again, with replacement.
//!
//! What is drawn are *images*: the questions of one image, or its captions, are not independent. A draw is a
//! function of seed and number alone, so that two models are compared on the same draws, and every machine
//! finds the same interval.

use std::cmp::Ordering;

use blip2_random::KeyedRng;
use serde::Serialize;

/// Share of the draws that lie in an interval, in per cent.
pub const LEVEL: f64 = 95.0;

/// What a score is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ScoreName {
    /// What is measured, under its usual name: `accuracy`, `txt_r1`, `CIDEr`.
    pub name: &'static str,
    /// Of which part, as kind and name (`answer type`, `number`); `None` of all.
    pub part: Option<(&'static str, String)>,
}

impl ScoreName {
    /// Of everything.
    pub fn overall(name: &'static str) -> Self {
        Self { name, part: None }
    }

    /// Of a part.
    pub fn of(name: &'static str, kind: &'static str, part: impl Into<String>) -> Self {
        Self { name, part: Some((kind, part.into())) }
    }
}

/// Scores that can be computed over any choice of their images.
pub trait Scored {
    /// What the scores are of, each once.
    fn names(&self) -> &[ScoreName];

    /// How many questions, captions or queries each score is of.
    fn items(&self) -> Vec<usize>;

    /// The scores over all images, mostly in per cent.
    fn values(&self) -> Vec<f64>;

    /// Images that can be drawn.
    fn images(&self) -> usize;

    /// The scores over these images, one as often as it is listed; `None` where nothing of a score is in
    /// them.
    fn over(&self, draw: &[usize]) -> Vec<Option<f64>>;
}

/// Which draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draws {
    /// How many; none gives no interval.
    pub count: usize,
    /// Another seed, other draws.
    pub seed: u64,
}

/// The middle of the draws' scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// 2.5 per cent of the draws are below.
    pub low: f64,
    /// 2.5 per cent of the draws are above.
    pub high: f64,
}

/// A second model's score less the first one's, over the same images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Over all images.
    pub value: f64,
    /// Over the draws; `None` without any.
    pub interval: Option<Interval>,
    /// Share of the draws in which the second is above the first, 0 to 1; a draw with equal scores is half of
    /// one.
    pub above: Option<f64>,
}

impl Draws {
    /// Indices of the images of a draw, as many as there are images.
    fn draw(self, index: usize, images: usize) -> Vec<usize> {
        let mut rng = KeyedRng::new(self.seed, "bootstrap", &[index as u64]);
        (0..images).map(|_| rng.below(images as u64) as usize).collect()
    }

    /// An interval of each score; `None` of one that is in no draw.
    pub fn intervals(self, scored: &dyn Scored) -> Vec<Option<Interval>> {
        let mut drawn = vec![Vec::with_capacity(self.count); scored.names().len()];
        for index in 0..self.count {
            let scores = scored.over(&self.draw(index, scored.images()));
            drawn.iter_mut().zip(scores).for_each(|(all, score)| all.extend(score));
        }
        drawn.into_iter().map(interval).collect()
    }

    /// How much the second's scores are above the first's, on the same draws. Both are of the same questions.
    ///
    /// # Panics
    /// If they are not of the same scores and images.
    pub fn differences(self, first: &dyn Scored, second: &dyn Scored) -> Vec<Difference> {
        assert_eq!(first.names(), second.names(), "scores of the same");
        assert_eq!(first.images(), second.images(), "scores over the same images");
        let mut drawn = vec![Vec::with_capacity(self.count); first.names().len()];
        for index in 0..self.count {
            let draw = self.draw(index, first.images());
            let pairs = first.over(&draw).into_iter().zip(second.over(&draw));
            for (all, (first, second)) in drawn.iter_mut().zip(pairs) {
                all.extend(first.zip(second).map(|(first, second)| second - first));
            }
        }
        let values = first.values().into_iter().zip(second.values()).map(|(first, second)| second - first);
        let differences = values.zip(drawn);
        differences
            .map(|(value, drawn)| Difference { value, above: above(&drawn), interval: interval(drawn) })
            .collect()
    }
}

/// Between the percentiles, each linear between its neighbours.
fn interval(mut drawn: Vec<f64>) -> Option<Interval> {
    drawn.sort_by(f64::total_cmp);
    let last = drawn.len().checked_sub(1)?;
    let percentile = |percent: f64| {
        let place = percent / 100.0 * last as f64;
        let (below, rest) = (place.floor() as usize, place.fract());
        drawn[below] + rest * (drawn[(below + 1).min(last)] - drawn[below])
    };
    let outside = (100.0 - LEVEL) / 2.0;
    Some(Interval { low: percentile(outside), high: percentile(100.0 - outside) })
}

fn above(drawn: &[f64]) -> Option<f64> {
    let share = |difference: &f64| match difference.partial_cmp(&0.0) {
        Some(Ordering::Greater) => 1.0,
        Some(Ordering::Equal) => 0.5,
        _ => 0.0,
    };
    (!drawn.is_empty()).then(|| drawn.iter().map(share).sum::<f64>() / drawn.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of one number an image, and of the images that have an even place.
    struct Numbers(Vec<f64>, [ScoreName; 2]);

    impl Numbers {
        fn new(values: Vec<f64>) -> Self {
            Self(values, [ScoreName::overall("mean"), ScoreName::of("mean", "place", "even")])
        }
    }

    impl Scored for Numbers {
        fn names(&self) -> &[ScoreName] {
            &self.1
        }

        fn items(&self) -> Vec<usize> {
            vec![self.0.len(), self.0.len().div_ceil(2)]
        }

        fn values(&self) -> Vec<f64> {
            let all: Vec<usize> = (0..self.images()).collect();
            self.over(&all).into_iter().map(Option::unwrap).collect()
        }

        fn images(&self) -> usize {
            self.0.len()
        }

        fn over(&self, draw: &[usize]) -> Vec<Option<f64>> {
            let mean = |places: Vec<usize>| {
                let sum: f64 = places.iter().map(|place| self.0[*place]).sum();
                (!places.is_empty()).then(|| sum / places.len() as f64)
            };
            let even = draw.iter().copied().filter(|place| place % 2 == 0).collect();
            vec![mean(draw.to_vec()), mean(even)]
        }
    }

    #[test]
    fn an_interval_is_as_wide_as_theory_has_it() {
        // 400 numbers of a coin: the mean's standard error is 0.5 / 20.
        let coins = Numbers::new((0..400).map(|place| f64::from(u8::from(place % 4 < 2))).collect());
        let draws = Draws { count: 1000, seed: 3 };
        let all = draws.intervals(&coins)[0].unwrap();
        let (low, high) = (0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025);
        assert!((all.low - low).abs() < 0.008 && (all.high - high).abs() < 0.008, "{all:?}");
        assert_eq!(draws.intervals(&coins)[0], Some(all), "a function of the seed");
        assert_ne!(Draws { seed: 4, ..draws }.intervals(&coins)[0], Some(all));
        assert_eq!(Draws { count: 0, ..draws }.intervals(&coins), [None, None]);
    }

    #[test]
    fn two_models_are_compared_on_the_same_draws() {
        let first = Numbers::new((0..50).map(|place| f64::from(place % 7)).collect());
        let second = Numbers::new(first.0.iter().map(|value| value + 0.25).collect());
        let draws = Draws { count: 200, seed: 0 };
        for difference in draws.differences(&first, &second) {
            let Interval { low, high } = difference.interval.unwrap();
            assert!((low - 0.25).abs() < 1e-12 && (high - 0.25).abs() < 1e-12, "{low} {high}");
            assert_eq!(difference.above, Some(1.0));
        }
        assert_eq!(draws.differences(&first, &first)[0].above, Some(0.5));
        assert_eq!(draws.differences(&second, &first)[0].above, Some(0.0));
        assert_eq!(Draws { count: 0, seed: 0 }.differences(&first, &second)[0].interval, None);
    }

    #[test]
    fn a_part_that_is_not_drawn_has_no_score_there() {
        let two = Numbers::new(vec![1.0, 0.0]);
        let draws = Draws { count: 100, seed: 1 };
        // A quarter of the draws has the odd image twice: the even part is 1 in all others.
        assert_eq!(draws.intervals(&two)[1], Some(Interval { low: 1.0, high: 1.0 }));
        assert!((0..100).any(|index| draws.draw(index, 2) == [1, 1]));
    }

    #[test]
    fn percentiles_are_linear_between_their_neighbours() {
        let hundred = (0..=100).rev().map(f64::from).collect();
        assert_eq!(interval(hundred), Some(Interval { low: 2.5, high: 97.5 }));
        assert_eq!(interval(vec![4.0]), Some(Interval { low: 4.0, high: 4.0 }));
        assert_eq!(interval(Vec::new()), None);
    }
}
