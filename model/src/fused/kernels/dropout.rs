//! Dropout whose mask is a hash of key and index.

use rayon::prelude::*;

use super::TASK;
use crate::dropout::hash;

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

/// The elements that are kept, multiplied; zero in the others' places.
pub(in crate::fused) fn apply(x: &[f32], mask: Mask) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let mut output = vec![0.0; x.len()];
    let tasks = output.par_chunks_mut(TASK).zip(x.par_chunks(TASK));
    tasks.enumerate().for_each(|(task, (output, x))| {
        arch.dispatch(
            #[inline(always)]
            || {
                for ((output, x), offset) in output.iter_mut().zip(x).zip(0..) {
                    *output = x * mask.factor_of(first_of(task).wrapping_add(offset));
                }
            },
        );
    });
    output
}

/// [`apply`] without another buffer.
pub(in crate::fused) fn in_place(x: &mut [f32], mask: Mask) {
    let arch = pulp::Arch::new();
    x.par_chunks_mut(TASK).enumerate().for_each(|(task, x)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for (x, offset) in x.iter_mut().zip(0..) {
                    *x *= mask.factor_of(first_of(task).wrapping_add(offset));
                }
            },
        );
    });
}

/// The index of a task's first element; they are counted in 32 bits, as where masks are tensors.
#[inline(always)]
fn first_of(task: usize) -> u32 {
    (task * TASK) as u32
}
