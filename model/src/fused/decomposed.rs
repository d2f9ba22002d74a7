//! The same functions composed of burn's operations.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Int, Tensor, module};

use super::Mask;
use super::kernels::dropout::MULTIPLIERS;
use crate::device::cast::in_numbers;
use crate::device::compute::Compute;

/// `x/2 · (1 + erf(x/√2))`. Not burn's function: on devices that have no derivative of their own it takes that of the
/// approximation by tanh, which is up to 9e-4 off.
pub(super) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let twice_the_share = (x.clone() * FRAC_1_SQRT_2).erf() + 1.0;
    x * twice_the_share * 0.5
}

pub(super) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    residual: Option<Tensor<D>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let x = match residual {
        Some(residual) => x + residual,
        None => x,
    };
    module::layer_norm(x, weight, Some(bias), epsilon)
}

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
        Some(mask) => dropout(weights, mask),
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

pub(super) fn dropout<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    let shape = x.dims();
    let elements = shape.iter().product::<usize>();
    let device = x.device().inner();
    let keep = hashes(Tensor::<1, Int>::arange(0..elements as i64, &device), mask.key)
        .greater_equal_scalar(mask.threshold as i32)
        .float()
        .reshape(shape);
    x * (keep * mask.factor)
}

/// The upper 24 bits of [`hash`](super::hash)`(index ^ key)` for each index, in `0..2^24`.
fn hashes(index: Tensor<1, Int>, key: u32) -> Tensor<1, Int> {
    let x = index.bitwise_xor_scalar(key as i32);
    let x = xor_shift(x, 16) * (MULTIPLIERS[0] as i32);
    let x = xor_shift(x, 15) * (MULTIPLIERS[1] as i32);
    logical_shift(xor_shift(x, 16), 8)
}

fn xor_shift(x: Tensor<1, Int>, bits: u32) -> Tensor<1, Int> {
    let shifted = logical_shift(x.clone(), bits);
    x.bitwise_xor(shifted)
}

/// A right shift that brings in zeros: the tensor's integers are signed.
fn logical_shift(x: Tensor<1, Int>, bits: u32) -> Tensor<1, Int> {
    x.bitwise_right_shift_scalar(bits as i32).bitwise_and_scalar((u32::MAX >> bits) as i32)
}

#[cfg(test)]
mod tests {
    use super::super::hash;
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn device_hash_equals_the_scalar_hash() {
        let device = Device::flex();
        let key = 0xDEAD_BEEF;
        let got = hashes(Tensor::<1, Int>::arange(0..1000, &device), key).into_data_as::<i32>();
        let want: Vec<i32> = (0..1000u32).map(|i| (hash(i ^ key) >> 8) as i32).collect();
        assert_eq!(got.as_slice::<i32>().unwrap(), want.as_slice());
    }
}
