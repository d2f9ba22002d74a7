//! Means of a number an item, in per cent: over all items and over those of each part.

use std::collections::BTreeMap;

use super::bootstrap::{ScoreName, Scored};

/// One item: a question, or a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Index of its image.
    pub image: usize,
    /// What it counts, 0 to 1.
    pub value: f64,
    /// The scores that it is part of, as indices of their names.
    pub scores: Vec<usize>,
}

/// A sum and of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tally {
    sum: f64,
    items: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.items += other.items;
    }

    /// In per cent: in this order, in which the reference tools compute.
    fn percent(self) -> Option<f64> {
        (self.items > 0).then(|| 100.0 * self.sum / self.items as f64)
    }
}

/// The means.
#[derive(Debug, Clone, PartialEq)]
pub struct Means {
    names: Vec<ScoreName>,
    /// In the items' order, so that the last digit is the reference tools'.
    whole: Vec<Tally>,
    /// Of each image.
    images: Vec<Vec<(usize, Tally)>>,
}

impl Means {
    /// Of these items, in this order.
    ///
    /// # Panics
    /// If an item's image or score is none of those that there are.
    pub fn new(names: Vec<ScoreName>, images: usize, items: impl IntoIterator<Item = Item>) -> Self {
        let mut whole = vec![Tally::default(); names.len()];
        let mut of_image = vec![BTreeMap::<usize, Tally>::new(); images];
        for item in items {
            let one = Tally { sum: item.value, items: 1 };
            for score in item.scores {
                whole[score].add(one);
                of_image[item.image].entry(score).or_default().add(one);
            }
        }
        let images = of_image.into_iter().map(|tallies| tallies.into_iter().collect()).collect();
        Self { names, whole, images }
    }
}

impl Scored for Means {
    fn names(&self) -> &[ScoreName] {
        &self.names
    }

    fn items(&self) -> Vec<usize> {
        self.whole.iter().map(|tally| tally.items).collect()
    }

    fn values(&self) -> Vec<f64> {
        self.whole.iter().map(|tally| tally.percent().unwrap_or_default()).collect()
    }

    fn images(&self) -> usize {
        self.images.len()
    }

    fn over(&self, draw: &[usize]) -> Vec<Option<f64>> {
        let mut tallies = vec![Tally::default(); self.names.len()];
        for image in draw {
            for (score, tally) in &self.images[*image] {
                tallies[*score].add(*tally);
            }
        }
        tallies.into_iter().map(Tally::percent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_count_where_they_belong() {
        let names = vec![ScoreName::overall("accuracy"), ScoreName::of("accuracy", "answer type", "number")];
        let item = |image, value, scores: &[usize]| Item { image, value, scores: scores.to_vec() };
        let items = [item(0, 1.0, &[0, 1]), item(1, 0.5, &[0]), item(1, 0.0, &[0, 1])];
        let means = Means::new(names, 2, items);
        assert_eq!((means.values(), means.items()), (vec![50.0, 50.0], vec![3, 2]));
        assert_eq!(means.over(&[1, 1]), [Some(25.0), Some(0.0)]);
        assert_eq!(means.over(&[]), [None, None]);
    }
}
