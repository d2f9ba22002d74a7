//! Words as numbers, and the runs of words that are counted.

use std::collections::BTreeMap;

/// Runs of one word up to this many are counted.
pub const ORDERS: usize = 4;

/// A word, as a number that is its own in a [`Vocabulary`]. Not zero.
pub type Word = u32;

/// A run of words of a known length.
pub(super) type NGram = u128;

/// Numbers of words, in the order in which they are met.
#[derive(Debug, Default)]
pub struct Vocabulary<'a>(BTreeMap<&'a str, Word>);

impl<'a> Vocabulary<'a> {
    /// A caption's words, which are parted by white space.
    pub fn words(&mut self, caption: &'a str) -> Vec<Word> {
        let number = |word| {
            let next = self.0.len() as Word + 1;
            *self.0.entry(word).or_insert(next)
        };
        caption.split_whitespace().map(number).collect()
    }
}

/// The different runs of so many words, ascending, and how often each is there.
pub(super) fn counted(words: &[Word], length: usize) -> Vec<(NGram, u32)> {
    let packed = |run: &[Word]| run.iter().fold(0, |packed, word| packed << Word::BITS | NGram::from(*word));
    let mut runs: Vec<NGram> = words.windows(length).map(packed).collect();
    runs.sort_unstable();
    runs.chunk_by(|one, next| one == next).map(|same| (same[0], same.len() as u32)).collect()
}

/// What stands beside an n-gram in a list that ascends.
pub(super) fn find<V: Copy>(list: &[(NGram, V)], ngram: NGram) -> Option<V> {
    list.binary_search_by_key(&ngram, |(ngram, _)| *ngram).ok().map(|at| list[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted() {
        let words = Vocabulary::default().words("a b a b");
        assert_eq!(words, [1, 2, 1, 2]);
        let pair = |one: u128, other: u128| one << 32 | other;
        assert_eq!(counted(&words, 2), [(pair(1, 2), 2), (pair(2, 1), 1)]);
        assert_eq!(counted(&words, 5), []);
        assert_eq!(find(&counted(&words, 2), pair(2, 1)), Some(1));
        assert_eq!(find(&counted(&words, 2), pair(2, 2)), None);
    }
}
