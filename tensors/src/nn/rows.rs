//! What a search chose, as tensors for the model's batch.

use burn::tensor::{Device, Int, Tensor};

/// The rows that go on, where they are not the `rows` that there are in their order.
///
/// # Shapes
/// - output `[parents.len()]`
pub fn moved_rows(parents: &[usize], rows: usize, device: &Device) -> Option<Tensor<1, Int>> {
    let in_place = parents.len() == rows && parents.iter().enumerate().all(|(row, parent)| row == *parent);
    (!in_place).then(|| {
        let parents: Vec<i32> = parents.iter().map(|parent| *parent as i32).collect();
        Tensor::from_ints(parents.as_slice(), device)
    })
}

/// One token for each row.
///
/// # Shapes
/// - output `[tokens.len(), 1]`
pub fn next_column(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    Tensor::<1, Int>::from_ints(ids.as_slice(), device).reshape([tokens.len(), 1])
}
