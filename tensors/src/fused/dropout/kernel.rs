//! Dropout whose mask is a hash of key and index.

use rayon::prelude::*;

use crate::fused::kernels::TASK;

/// Which elements are dropped, and what the others are multiplied by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask {
    /// Of the call: element `i` is hashed as `i ^ key`.
    pub(crate) key: u32,
    /// Elements whose upper 24 bits of the hash are below it are dropped.
    pub(crate) threshold: u32,
    pub(crate) factor: f32,
}

impl Mask {
    /// What element `index` is multiplied by.
    #[inline(always)]
    fn factor_of(self, index: u32) -> f32 {
        if hash(index ^ self.key) >> 8 >= self.threshold { self.factor } else { 0.0 }
    }
}

/// The multipliers of [`hash`].
pub(super) const MULTIPLIERS: [u32; 2] = [0x7FEB_352D, 0x846C_A68B];

/// The `lowbias32` integer hash (Wellons, "Prospecting for Hash Functions").
#[inline(always)]
pub(crate) fn hash(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(MULTIPLIERS[0]);
    x ^= x >> 15;
    x = x.wrapping_mul(MULTIPLIERS[1]);
    x ^ (x >> 16)
}

/// The elements that are kept, multiplied; zero in the others' places.
pub(super) fn apply(x: &[f32], mask: Mask) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let mut output = vec![0.0; x.len()];
    let tasks = output.par_chunks_mut(TASK).zip(x.par_chunks(TASK));
    tasks.enumerate().for_each(|(task, (output, x))| {
        // Indices are counted in 32 bits, as where masks are tensors.
        let first = (task * TASK) as u32;
        arch.dispatch(
            #[inline(always)]
            || {
                for ((output, x), offset) in output.iter_mut().zip(x).zip(0..) {
                    *output = x * mask.factor_of(first.wrapping_add(offset));
                }
            },
        );
    });
    output
}
