//! The texts of a measured step: half of each is padding.

use blip2_model::padded::computed_length;

/// Tokens of a text of `length` positions.
pub(super) fn tokens(length: usize) -> usize {
    length.div_ceil(2)
}

/// How many of `length` positions are computed.
pub(super) fn computed(length: usize) -> usize {
    computed_length(tokens(length), length)
}

/// 1 for a token, 0 for padding, `[rows, length]`.
pub(super) fn mask(rows: usize, length: usize) -> Vec<i32> {
    (0..rows * length).map(|at| i32::from(at % length < tokens(length))).collect()
}
