//! Dropout on CubeCL's devices.

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::kernel::{MULTIPLIERS, Mask};
use super::operation::DropoutOps;
use crate::fused::cube::{contiguous, numbers, unit_each, unwritten};

const FIRST: u32 = MULTIPLIERS[0];
const SECOND: u32 = MULTIPLIERS[1];

/// What the mask multiplies element `index` by.
#[cube]
pub(in crate::fused) fn factor_of(index: u32, key: u32, threshold: u32, factor: f32) -> f32 {
    let mut x = index ^ key;
    x ^= x >> 16;
    x *= FIRST;
    x ^= x >> 15;
    x *= SECOND;
    x ^= x >> 16;
    select((x >> 8) >= threshold, factor, 0.0)
}

#[cube(launch)]
fn drop_elements<X: Float>(
    x: &Tensor<X>,
    output: &mut Tensor<X>,
    key: u32,
    threshold: u32,
    factor: f32,
    #[define(X)] _numbers: ElemType,
) {
    if ABSOLUTE_POS < output.len() {
        let kept = factor_of(ABSOLUTE_POS as u32, key, threshold, factor);
        output[ABSOLUTE_POS] = X::cast_from(f32::cast_from(x[ABSOLUTE_POS]) * kept);
    }
}

impl DropoutOps for CubeBackend {
    fn fused_dropout(x: CubeTensor, mask: Mask) -> CubeTensor {
        let x = contiguous(x);
        let (output, numbers) = (unwritten(&x, x.shape(), x.dtype), numbers(&x));
        let (count, units) = unit_each(x.shape().num_elements());
        drop_elements::launch(
            &x.client.clone(),
            count,
            units,
            x.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            mask.key,
            mask.threshold,
            mask.factor,
            numbers,
        );
        output
    }
}
