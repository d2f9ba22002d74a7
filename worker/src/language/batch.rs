//! Texts as a language model reads and writes them.

use blip2_dataset::text::Tokens;
use blip2_model::language::Texts;
use blip2_model::padded::Padded;
use blip2_tensors::train::loss::{IGNORED, counted};

/// Captions or answers as a language model reads and writes them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct CaptionBatch {
    pub(super) rows: usize,
    pub(super) prefix: Flat,
    pub(super) text: Flat,
    pub(super) labels: Vec<i32>,
    /// Factor of each text's loss; empty: 1 for each.
    pub(super) weights: Vec<f32>,
}

/// Ids and mask, row-major.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flat {
    pub(super) ids: Vec<i32>,
    pub(super) mask: Vec<i32>,
}

impl Flat {
    pub(super) fn push(&mut self, tokens: Tokens) {
        self.ids.extend(tokens.ids);
        self.mask.extend(tokens.mask);
    }

    pub(super) fn append(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.mask.extend(other.mask);
    }

    fn padded(&self) -> Padded<'_> {
        Padded { ids: &self.ids, mask: &self.mask }
    }

    /// The ids, where the first `given` of each row and padding are replaced by [`IGNORED`].
    pub(super) fn labels(&self, rows: usize, given: usize) -> Vec<i32> {
        let length = (self.ids.len() / rows.max(1)).max(1);
        let places = self.ids.iter().zip(&self.mask).enumerate();
        places.map(|(at, (id, mask))| if *mask == 0 || at % length < given { IGNORED } else { *id }).collect()
    }
}

impl CaptionBatch {
    /// What a language model's loss takes.
    pub(crate) fn texts(&self) -> Texts<'_> {
        Texts {
            rows: self.rows,
            prefix: self.prefix.padded(),
            text: self.text.padded(),
            labels: &self.labels,
            weights: &self.weights,
        }
    }

    /// Number of tokens with a loss.
    pub(crate) fn tokens(&self) -> usize {
        counted(&self.labels)
    }

    /// Texts that a decoder writes whole, the first `given` tokens without loss.
    pub(super) fn causal(rows: usize, text: Flat, given: usize) -> Self {
        let labels = text.labels(rows, given);
        Self { rows, text, labels, ..Self::default() }
    }
}
