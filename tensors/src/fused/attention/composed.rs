//! Attention composed of burn's operations.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Tensor};

use crate::device::cast::in_numbers;
use crate::device::compute::Compute;
use crate::fused::dropout::{self, Mask};

pub(super) fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<4>>,
    scale: f64,
    dropped: Option<Mask>,
    compute: Compute,
) -> Tensor<4> {
    let numbers = query.dtype();
    // What is kept in bf16 has its scores and probabilities in float32.
    let (compute, wide) = match numbers {
        DType::BF16 => (Compute::Bf16, DType::F32),
        _ => (compute, numbers),
    };
    let scores = product(query, key.swap_dims(2, 3), compute, wide);
    let scores = if scale == 1.0 { scores } else { scores * scale };
    let scores = match mask {
        Some(mask) => scores + mask,
        None => scores,
    };
    let weights = softmax(scores, 3);
    let weights = match dropped {
        Some(mask) => dropout::composed(weights, mask),
        None => weights,
    };
    product(weights, value, compute, numbers)
}

/// `a·b` in these numbers; where it is computed in bf16, the factors are rounded, and the result once more.
fn product(a: Tensor<4>, b: Tensor<4>, compute: Compute, numbers: DType) -> Tensor<4> {
    if compute == Compute::F32 || !matches!(a.dtype(), DType::F32 | DType::BF16) {
        return a.matmul(b);
    }
    in_numbers(in_numbers(a, compute.dtype()).matmul(in_numbers(b, compute.dtype())), numbers)
}
