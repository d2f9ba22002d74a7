//! Dropout whose masks are a function of a key and the element's index, not of a process-wide generator.

use burn::tensor::Tensor;

use crate::fused::{self, Mask, hash};

/// A stream of dropout masks: each call of [`Dropout::forward`] uses the next one.
///
/// The mask is a 32-bit integer hash of (key, call, element index), computed in one pass on the CPU and with
/// tensor operations on other devices, so that it depends neither on the device's generator nor on who else
/// drew from it.
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
    pub fn calls(&self) -> u32 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

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
