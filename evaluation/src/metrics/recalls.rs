//! Recalls of one or more rankings as scores that can be drawn again: what a query found stays as it is.

use super::bootstrap::{ScoreName, Scored};
use super::means::{Item, Means};
use super::retrieval::{Found, RANKS};

/// The names of a ranking's scores, as LAVIS has them; `txt` are images that look for texts.
const NAMES: [&str; 9] =
    ["txt_r1", "txt_r5", "txt_r10", "txt_r_mean", "img_r1", "img_r5", "img_r10", "img_r_mean", "r_mean"];
/// Those among them that are means of queries.
const OF_QUERIES: [usize; 6] = [0, 1, 2, 4, 5, 6];

/// What all queries found by one way of scoring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// How pairs were scored.
    pub name: &'static str,
    /// What each image found among the texts.
    pub texts: Vec<Found>,
    /// What each text found among the images.
    pub images: Vec<Found>,
}

/// The recalls of rankings of the same images and texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Recalls {
    names: Vec<ScoreName>,
    queries: Means,
}

impl Recalls {
    /// `image_of_text` is the image with which a text is drawn.
    pub fn new(rankings: &[Ranking], image_of_text: &[usize]) -> Self {
        let name = |ranking: &Ranking, name| ScoreName::of(name, "ranking", ranking.name);
        let all = |names: &[&'static str]| -> Vec<ScoreName> {
            rankings.iter().flat_map(|ranking| names.iter().map(move |known| name(ranking, known))).collect()
        };
        let images = rankings.first().map_or(0, |ranking| ranking.texts.len());
        let mut items = Vec::new();
        for (index, ranking) in rankings.iter().enumerate() {
            let scores = index * OF_QUERIES.len();
            for (image, found) in ranking.texts.iter().enumerate() {
                items.extend(queries(*found, image, scores));
            }
            for (found, image) in ranking.images.iter().zip(image_of_text) {
                items.extend(queries(*found, *image, scores + RANKS.len()));
            }
        }
        let of_queries = Means::new(all(&OF_QUERIES.map(|place| NAMES[place])), images, items);
        Self { names: all(&NAMES), queries: of_queries }
    }
}

/// One query's part of its three recalls, the first of which is the score `first`.
fn queries(found: Found, image: usize, first: usize) -> impl Iterator<Item = Item> {
    RANKS.into_iter().enumerate().map(move |(place, rank)| {
        let is_found = found.before.is_some_and(|before| before < rank);
        Item { image, value: f64::from(u8::from(is_found)), scores: vec![first + place] }
    })
}

/// All scores of rankings, from those of their queries.
fn with_means(queries: &[Option<f64>]) -> Vec<Option<f64>> {
    let mean = |three: &[Option<f64>]| {
        let known: Option<Vec<f64>> = three.iter().copied().collect();
        known.map(|known| known.iter().sum::<f64>() / known.len() as f64)
    };
    let with_means = |six: &[Option<f64>]| {
        let (texts, images) = six.split_at(RANKS.len());
        let means = (mean(texts), mean(images));
        let both = means.0.zip(means.1).map(|(texts, images)| (texts + images) / 2.0);
        [texts, &[means.0], images, &[means.1, both]].concat()
    };
    queries.chunks_exact(OF_QUERIES.len()).flat_map(with_means).collect()
}

impl Scored for Recalls {
    fn names(&self) -> &[ScoreName] {
        &self.names
    }

    fn items(&self) -> Vec<usize> {
        let queries = self.queries.items();
        let of_ranking = |six: &[usize]| {
            let (texts, images) = (six[0], six[RANKS.len()]);
            [[texts; 4], [images; 4]].concat().into_iter().chain([texts + images]).collect::<Vec<_>>()
        };
        queries.chunks_exact(OF_QUERIES.len()).flat_map(of_ranking).collect()
    }

    fn values(&self) -> Vec<f64> {
        let queries: Vec<_> = self.queries.values().into_iter().map(Some).collect();
        with_means(&queries).into_iter().map(Option::unwrap_or_default).collect()
    }

    fn images(&self) -> usize {
        self.queries.images()
    }

    fn over(&self, draw: &[usize]) -> Vec<Option<f64>> {
        with_means(&self.queries.over(draw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_in_their_order_and_of_their_queries() {
        let at = |before| Found { before, first: Some(0) };
        let ranking = Ranking {
            name: "ITC",
            texts: vec![at(Some(0)), at(Some(4))],
            images: vec![at(Some(0)), at(Some(7)), at(None)],
        };
        let recalls = Recalls::new(&[ranking.clone(), ranking], &[0, 0, 1]);
        let values = recalls.values();
        assert_eq!(values[..4], [50.0, 100.0, 100.0, 250.0 / 3.0]);
        assert_eq!((values[4], values[6]), (100.0 / 3.0, 200.0 / 3.0));
        assert_eq!(values[8], (values[3] + values[7]) / 2.0);
        assert_eq!(values[..9], values[9..]);
        assert_eq!(recalls.items()[..9], [2, 2, 2, 2, 3, 3, 3, 3, 5]);
        assert_eq!(recalls.names()[9], ScoreName::of("txt_r1", "ranking", "ITC"));
        assert_eq!(recalls.over(&[1, 1])[..2], [Some(0.0), Some(100.0)]);
    }
}
