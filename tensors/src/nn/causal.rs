//! What a token may see in a causal model, and where it stands.

use burn::tensor::{Device, Int, Tensor};

use crate::device::read_back::ints;
use crate::error::TensorError;
use crate::nn::attention::BLOCKED;

/// Which positions an attention sees.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one lives for each reading of the model")]
pub enum Visible {
    /// All of them.
    All,
    /// A position's own and those before it; the rows are the last positions.
    Causal,
    /// What is added to the scores, broadcastable to `[b, heads, rows, positions]`.
    Masked(Tensor<4>),
}

impl Visible {
    /// What the last `rows` positions see in a causal model: nothing is masked where nothing is padding and
    /// one row sees all.
    ///
    /// # Shapes
    /// - mask of all positions `[b, S]` (1: a token, 0: padding), or none where all are tokens
    pub fn to_last(rows: usize, mask: Option<Tensor<2, Int>>) -> Self {
        match mask {
            Some(mask) => Self::Masked(causal_mask(mask, rows)),
            None if rows == 1 => Self::All,
            None => Self::Causal,
        }
    }

    /// The mask that says so, where there is one.
    pub fn mask(&self, rows: usize, positions: usize, device: &Device) -> Option<Tensor<4>> {
        match self {
            Self::All => None,
            Self::Causal => Some(causal_mask(Tensor::ones([1, positions], device), rows)),
            Self::Masked(mask) => Some(mask.clone()),
        }
    }
}

/// The additive mask of the last `rows` positions over all of them: a position sees itself and what came
/// before it, except padding.
///
/// # Shapes
/// - mask `[b, S]` (1: a token, 0: padding); output `[b, 1, rows, S]`
pub fn causal_mask(mask: Tensor<2, Int>, rows: usize) -> Tensor<4> {
    let [_, seen] = mask.dims();
    let causal = Tensor::<2, Int>::ones([rows, seen], &mask.device()).tril((seen - rows) as i64).float();
    let visible = mask.float().unsqueeze_dims::<4>(&[1, 2]) * causal.unsqueeze::<4>();
    (visible - 1.0) * -f64::from(BLOCKED)
}

/// The mask where it hides anything: without padding there is nothing to hide.
pub fn padding_of(mask: Tensor<2, Int>) -> Result<Option<Tensor<2, Int>>, TensorError> {
    Ok(ints(mask.clone())?.contains(&0).then_some(mask))
}

/// The index of each token among the tokens of its row; -1 for padding.
///
/// # Shapes
/// - mask and output `[b, S]`
pub fn token_positions(mask: Tensor<2, Int>) -> Tensor<2, Int> {
    mask.clone().cumsum(1) * mask - 1
}

/// The index of each of the `length` tokens after `past` positions among the tokens of its row.
///
/// # Shapes
/// - mask of all positions `[b, past + length]`, or none where all are tokens; output `[b, length]` or,
///   without a mask, `[1, length]`
pub fn new_positions(
    mask: Option<Tensor<2, Int>>,
    past: usize,
    length: usize,
    device: &Device,
) -> Tensor<2, Int> {
    match mask {
        Some(mask) => token_positions(mask).narrow(1, past, length),
        None => Tensor::<1, Int>::arange(past as i64..(past + length) as i64, device).unsqueeze(),
    }
}

/// Refuses input embeddings of another width, a mask that does not fit the `past` and the new positions, and
/// more positions than `limit`.
pub fn check_sequence(
    inputs_embeds: &Tensor<3>,
    mask: Option<&Tensor<2, Int>>,
    past: usize,
    width: usize,
    limit: usize,
) -> Result<(), TensorError> {
    let [batch, length, found] = inputs_embeds.dims();
    if found != width || length == 0 {
        let reason = format!("shape {:?}, width {width} is needed", inputs_embeds.dims());
        return Err(TensorError::input("input embeddings", reason));
    }
    let positions = past + length;
    if let Some(mask) = mask.filter(|mask| mask.dims() != [batch, positions]) {
        let reason = format!("shape {:?}, {:?} is needed", mask.dims(), [batch, positions]);
        return Err(TensorError::input("attention mask", reason));
    }
    if positions > limit {
        let reason = format!("{positions} positions, the language model has {limit}");
        return Err(TensorError::input("sequence", reason));
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
    fn only_padding_and_several_rows_need_a_mask() {
        let mask = Tensor::<2, Int>::from_ints([[0, 1, 1, 1]], &Device::flex());
        assert!(matches!(Visible::to_last(1, Some(mask.clone())), Visible::Masked(_)));
        assert!(matches!(Visible::to_last(1, None), Visible::All));
        let causal = Visible::to_last(2, None);
        assert!(matches!(causal, Visible::Causal));
        let drawn = causal.mask(2, 4, &Device::flex()).unwrap();
        assert_eq!(drawn.into_data(), causal_mask(Tensor::ones([1, 4], &Device::flex()), 2).into_data());
        let positions =
            |mask| crate::device::read_back::ints(new_positions(mask, 2, 2, &Device::flex())).unwrap();
        assert_eq!((positions(None), positions(Some(mask))), (vec![2, 3], vec![1, 2]));
    }

    #[test]
    fn positions_count_tokens_only() {
        let mask = Tensor::<2, Int>::from_ints([[1, 0, 0, 1], [0, 1, 1, 1]], &Device::flex());
        let positions = crate::device::read_back::ints(token_positions(mask)).unwrap();
        assert_eq!(positions, [0, -1, -1, 1, -1, 0, 1, 2]);
    }
}
