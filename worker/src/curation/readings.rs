//! The texts of a batch of pictures as models read them.

use std::collections::BTreeMap;

use blip2_dataset::{MAX_CAPTION_WORDS, ScoredText, clean_caption};

/// A text about each of some pictures, cleaned; several may be about one picture, and several may be equal.
pub(super) struct Readings(Vec<(usize, String)>);

impl Readings {
    /// All texts of all pictures, in their order.
    pub(super) fn new(texts: &[Vec<ScoredText>]) -> Self {
        let of_picture = |(picture, texts): (usize, &Vec<ScoredText>)| {
            let clean = |text: &ScoredText| (picture, clean_caption(&text.text, MAX_CAPTION_WORDS));
            texts.iter().map(clean).collect::<Vec<_>>()
        };
        Self(texts.iter().enumerate().flat_map(of_picture).collect())
    }

    /// The picture of each.
    pub(super) fn pictures(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|(picture, _)| *picture)
    }

    /// The texts without their doubles, and which of them each reading is.
    pub(super) fn distinct_texts(&self) -> (Vec<&str>, Vec<usize>) {
        distinct(self.0.iter().map(|(_, text)| text.as_str()))
    }

    /// The same of a text with its picture.
    pub(super) fn distinct_pairs(&self) -> (Vec<(usize, &str)>, Vec<usize>) {
        distinct(self.0.iter().map(|(picture, text)| (*picture, text.as_str())))
    }
}

/// Items by their first occurrence, and which of them each is.
fn distinct<T: Ord + Copy>(items: impl Iterator<Item = T>) -> (Vec<T>, Vec<usize>) {
    let (mut known, mut first, mut places) = (BTreeMap::new(), Vec::new(), Vec::new());
    for item in items {
        let place = *known.entry(item).or_insert_with(|| {
            first.push(item);
            first.len() - 1
        });
        places.push(place);
    }
    (first, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_dataset::TextSource;

    #[test]
    fn equal_texts_are_read_once() {
        let text = |text: &str| ScoredText {
            text: text.into(),
            source: TextSource::Web,
            clip_score: None,
            itm_score: None,
        };
        let readings =
            Readings::new(&[vec![text("A cat!"), text("dog")], vec![], vec![text("a cat"), text("a cat")]]);
        assert_eq!(readings.pictures().collect::<Vec<_>>(), [0, 0, 2, 2]);
        assert_eq!(readings.distinct_texts(), (vec!["a cat", "dog"], vec![0, 1, 0, 0]));
        assert_eq!(
            readings.distinct_pairs(),
            (vec![(0, "a cat"), (0, "dog"), (2, "a cat")], vec![0, 1, 2, 2])
        );
    }
}
