//! Dropout composed of burn's operations.

use burn::tensor::{Int, Tensor};

use super::kernel::MULTIPLIERS;
use super::kernel::Mask;

pub(in crate::fused) fn composed<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
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
    use super::*;
    use crate::fused::dropout::hash;
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
