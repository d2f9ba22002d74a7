//! Texts of one length, and how much of it they use.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Lengths are multiples of it, so that few shapes occur and rows of scores are whole vectors.
const STRIDE: usize = 4;

/// Token ids and their mask (1: a token, 0: padding), row-major, all rows of one length.
#[derive(Debug, Clone, Copy, Default)]
pub struct Padded<'a> {
    /// Token ids.
    pub ids: &'a [i32],
    /// As long as `ids`.
    pub mask: &'a [i32],
}

/// How many of `length` positions are computed for texts of which the longest has `longest` tokens: padding
/// behind all texts of a slot is left out, since nothing looks at it.
pub fn computed_length(longest: usize, length: usize) -> usize {
    longest.max(1).next_multiple_of(STRIDE).min(length)
}

/// How many positions of rows of `length` there are up to the last one that is alive in any row.
pub(crate) fn used(length: usize, alive: impl Iterator<Item = bool>) -> usize {
    alive.enumerate().filter(|(_, alive)| *alive).map(|(at, _)| at % length + 1).max().unwrap_or(0)
}

impl Padded<'_> {
    /// Tokens and padding of a text.
    ///
    /// # Panics
    /// Without rows.
    fn length(&self, rows: usize) -> usize {
        self.ids.len() / rows
    }

    /// The positions that are computed where padding is on the right.
    pub(crate) fn computed(&self, rows: usize) -> Range<usize> {
        let length = self.length(rows);
        0..computed_length(used(length, self.mask.iter().map(|mask| *mask != 0)), length)
    }

    /// The positions that are computed where padding is on the left, and positions are counted from the first
    /// token.
    pub(crate) fn computed_behind_padding(&self, rows: usize) -> Range<usize> {
        let length = self.length(rows);
        let longest = used(length, self.mask.iter().rev().map(|mask| *mask != 0));
        length - computed_length(longest, length)..length
    }

    /// Ids and mask of the positions that are computed where padding is on the right.
    ///
    /// # Shapes
    /// - output `[rows, t]`, both
    pub(crate) fn computed_tensors(&self, rows: usize, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
        self.tensors(rows, &self.computed(rows), device)
    }

    /// Ids and mask of `positions` alone.
    ///
    /// # Shapes
    /// - output `[rows, positions.len()]`, both
    pub(crate) fn tensors(
        &self,
        rows: usize,
        positions: &Range<usize>,
        device: &Device,
    ) -> (Tensor<2, Int>, Tensor<2, Int>) {
        let length = self.length(rows);
        let tensor = |values: &[i32]| {
            let kept = columns(values, length, positions);
            Tensor::from_data(TensorData::new(kept, [rows, positions.len()]), device)
        };
        (tensor(self.ids), tensor(self.mask))
    }
}

/// The values of rows of `length` at `positions`, row-major.
pub(crate) fn columns(values: &[i32], length: usize, positions: &Range<usize>) -> Vec<i32> {
    values.chunks(length.max(1)).flat_map(|row| &row[positions.clone()]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_of_all_texts_is_left_out_and_that_of_one_is_not() {
        let mut mask = [0; 24];
        mask[..3].fill(1);
        mask[12..17].fill(1);
        let right = Padded { ids: &[7; 24], mask: &mask };
        assert_eq!(right.computed(2), 0..8);
        assert_eq!(right.computed(1), 0..20, "one text of 24");
        mask.reverse();
        let left = Padded { ids: &[7; 24], mask: &mask };
        assert_eq!((left.computed_behind_padding(2), left.computed(2)), (4..12, 0..12));
    }

    #[test]
    fn a_length_is_never_exceeded_and_never_nothing() {
        assert_eq!([0, 1, 4, 5, 6].map(|longest| computed_length(longest, 6)), [4, 4, 4, 6, 6]);
        assert_eq!(computed_length(0, 3), 3);
        let none = Padded { ids: &[0; 12], mask: &[0; 12] };
        assert_eq!((none.computed(2), none.computed_behind_padding(2)), (0..4, 2..6));
    }

    #[test]
    fn ids_and_mask_keep_their_places() {
        let (ids, mask) = ([1, 2, 3, 4, 5, 6], [1, 1, 0, 1, 0, 0]);
        let (ids, mask) = Padded { ids: &ids, mask: &mask }.tensors(2, &(0..2), &Device::flex());
        assert_eq!(ids.into_data().try_to_vec::<i32>().unwrap(), [1, 2, 4, 5]);
        assert_eq!(mask.into_data().try_to_vec::<i32>().unwrap(), [1, 1, 1, 0]);
    }
}
