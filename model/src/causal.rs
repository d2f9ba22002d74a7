//! What a token may see in a causal model, and where it stands.

use burn::tensor::{Int, Tensor};

use crate::ModelError;
use crate::layers::BLOCKED;

/// The additive mask of the last `rows` positions over all of them: a position sees itself and what came
/// before it, except padding.
///
/// # Shapes
/// - mask `[b, S]` (1: a token, 0: padding); output `[b, 1, rows, S]`
pub(crate) fn causal_mask(mask: Tensor<2, Int>, rows: usize) -> Tensor<4> {
    let [_, seen] = mask.dims();
    let causal = Tensor::<2, Int>::ones([rows, seen], &mask.device()).tril((seen - rows) as i64).float();
    let visible = mask.float().unsqueeze_dims::<4>(&[1, 2]) * causal.unsqueeze::<4>();
    (visible - 1.0) * -f64::from(BLOCKED)
}

/// The index of each token among the tokens of its row; -1 for padding.
///
/// # Shapes
/// - mask and output `[b, S]`
pub(crate) fn token_positions(mask: Tensor<2, Int>) -> Tensor<2, Int> {
    mask.clone().cumsum(1) * mask - 1
}

/// Refuses input embeddings of another width, a mask that does not fit the `past` and the new positions, and
/// more positions than `limit`.
pub(crate) fn check_sequence(
    inputs_embeds: &Tensor<3>,
    mask: &Tensor<2, Int>,
    past: usize,
    width: usize,
    limit: usize,
) -> Result<(), ModelError> {
    let [batch, length, found] = inputs_embeds.dims();
    if found != width || length == 0 {
        let reason = format!("shape {:?}, width {width} is needed", inputs_embeds.dims());
        return Err(ModelError::input("input embeddings", reason));
    }
    let positions = past + length;
    if mask.dims() != [batch, positions] {
        let reason = format!("shape {:?}, {:?} is needed", mask.dims(), [batch, positions]);
        return Err(ModelError::input("attention mask", reason));
    }
    if positions > limit {
        let reason = format!("{positions} positions, the language model has {limit}");
        return Err(ModelError::input("sequence", reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn later_positions_and_padding_are_blocked() {
        let mask = Tensor::<2, Int>::from_ints([[0, 1, 1, 1]], &Device::flex());
        let rows = causal_mask(mask, 2).into_data();
        let want = [BLOCKED, 0.0, 0.0, BLOCKED, BLOCKED, 0.0, 0.0, 0.0];
        assert_eq!(rows.as_slice::<f32>().unwrap(), want);
    }

    #[test]
    fn positions_count_tokens_only() {
        let mask = Tensor::<2, Int>::from_ints([[1, 0, 0, 1], [0, 1, 1, 1]], &Device::flex());
        let positions = crate::host::ints(token_positions(mask)).unwrap();
        assert_eq!(positions, [0, -1, -1, 1, -1, 0, 1, 2]);
    }
}
