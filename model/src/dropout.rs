//! Dropout whose masks are a function of a key and the element's index, not of a process-wide generator.

use burn::tensor::{Int, Tensor};

use crate::fused::{self, Mask};

/// A stream of dropout masks: each call of [`Dropout::forward`] uses the next one.
///
/// The mask is a 32-bit integer hash of (key, call, element index), computed in one pass on the CPU and with tensor operations
/// on other devices, so that it depends neither on the device's generator nor on who else drew from it.
#[derive(Debug, Clone)]
pub struct Dropout {
    probability: f64,
    key: u32,
    calls: u32,
}

impl Dropout {
    /// No dropout: evaluation, or probability 0.
    pub fn off() -> Self {
        Self { probability: 0.0, key: 0, calls: 0 }
    }

    /// Drops elements with `probability`; the masks depend on `key` and the order of calls.
    pub fn keyed(probability: f64, key: u32) -> Self {
        Self { probability, key, calls: 0 }
    }

    /// Whether nothing is dropped.
    pub fn is_off(&self) -> bool {
        self.probability <= 0.0
    }

    /// Masks drawn so far.
    #[cfg(test)]
    pub(crate) fn calls(&self) -> u32 {
        self.calls
    }

    /// Zeroes elements with the configured probability and scales the others by `1 / (1 - p)`.
    pub fn forward<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
        match self.next_mask() {
            Some(mask) => fused::dropout(x, mask),
            None => x,
        }
    }

    /// The mask of the next call; none where nothing is dropped.
    pub(crate) fn next_mask(&mut self) -> Option<Mask> {
        if self.is_off() {
            return None;
        }
        let key = hash(self.key ^ hash(self.calls.wrapping_add(0x9E37_79B9)));
        self.calls += 1;
        let threshold = (self.probability * f64::from(1u32 << 24)) as u32;
        Some(Mask { key, threshold, factor: (1.0 / (1.0 - self.probability)) as f32 })
    }
}

/// [`Dropout::forward`] as a mask that is a tensor.
pub(crate) fn decomposed<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    let shape = x.dims();
    let elements = shape.iter().product::<usize>();
    let device = x.device().inner();
    let keep = mask_hash(Tensor::<1, Int>::arange(0..elements as i64, &device), mask.key)
        .greater_equal_scalar(mask.threshold as i32)
        .float()
        .reshape(shape);
    x * (keep * mask.factor)
}

const MULTIPLIER_1: u32 = 0x7FEB_352D;
const MULTIPLIER_2: u32 = 0x846C_A68B;

/// The `lowbias32` integer hash (Wellons, "Prospecting for Hash Functions").
#[inline(always)]
pub(crate) fn hash(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(MULTIPLIER_1);
    x ^= x >> 15;
    x = x.wrapping_mul(MULTIPLIER_2);
    x ^ (x >> 16)
}

/// The upper 24 bits of `hash(index ^ key)` for each index, in `0..2^24`.
fn mask_hash(index: Tensor<1, Int>, key: u32) -> Tensor<1, Int> {
    let x = index.bitwise_xor_scalar(key as i32);
    let x = xor_shift(x, 16) * (MULTIPLIER_1 as i32);
    let x = xor_shift(x, 15) * (MULTIPLIER_2 as i32);
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
    use burn::tensor::Device;

    #[test]
    fn device_hash_equals_the_scalar_hash() {
        let device = Device::flex();
        let key = 0xDEAD_BEEF;
        let got = mask_hash(Tensor::<1, Int>::arange(0..1000, &device), key).into_data_as::<i32>();
        let want: Vec<i32> = (0..1000u32).map(|i| (hash(i ^ key) >> 8) as i32).collect();
        assert_eq!(got.as_slice::<i32>().unwrap(), want.as_slice());
    }

    #[test]
    fn masks_repeat_by_key_and_differ_by_call() {
        let device = Device::flex();
        let x = Tensor::<2>::ones([64, 64], &device);
        let mut first = Dropout::keyed(0.25, 7);
        let mut again = Dropout::keyed(0.25, 7);
        let a = first.forward(x.clone()).into_data();
        assert_eq!(a, again.forward(x.clone()).into_data());
        assert_ne!(a, first.forward(x.clone()).into_data());
        let dropped = a.as_slice::<f32>().unwrap().iter().filter(|v| **v == 0.0).count();
        assert!((900..1150).contains(&dropped), "{dropped} of 4096 dropped");
        assert_eq!(Dropout::off().forward(x.clone()).into_data(), x.into_data());
    }
}
