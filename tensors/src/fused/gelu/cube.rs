//! GELU on CubeCL's devices.

use std::f32::consts::FRAC_1_SQRT_2;

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::kernel::DENSITY_AT_ZERO;
use super::operation::{GeluGradient, GeluOps};
use crate::fused::cube::{contiguous, numbers, unit_each, unwritten};

/// The normal distribution's cumulative probability `Φ(x)`.
#[cube]
fn below(x: f32) -> f32 {
    0.5 * (1.0 + Erf::erf(x * FRAC_1_SQRT_2))
}

#[cube(launch)]
fn gelu<X: Float>(x: &Tensor<X>, output: &mut Tensor<X>, #[define(X)] _numbers: ElemType) {
    if ABSOLUTE_POS < output.len() {
        let x = f32::cast_from(x[ABSOLUTE_POS]);
        output[ABSOLUTE_POS] = X::cast_from(x * below(x));
    }
}

#[cube(launch)]
fn gelu_backward<X: Float>(
    gradient: &Tensor<X>,
    x: &Tensor<X>,
    output: &mut Tensor<X>,
    #[define(X)] _numbers: ElemType,
) {
    if ABSOLUTE_POS < output.len() {
        let x = f32::cast_from(x[ABSOLUTE_POS]);
        let density = (x * x * -0.5f32).exp() * DENSITY_AT_ZERO;
        let gradient = f32::cast_from(gradient[ABSOLUTE_POS]);
        output[ABSOLUTE_POS] = X::cast_from(gradient * (below(x) + x * density));
    }
}

impl GeluOps for CubeBackend {
    fn fused_gelu(x: CubeTensor) -> CubeTensor {
        let x = contiguous(x);
        let (output, numbers) = (unwritten(&x, x.shape(), x.dtype), numbers(&x));
        let (count, units) = unit_each(x.shape().num_elements());
        gelu::launch(
            &x.client.clone(),
            count,
            units,
            x.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            numbers,
        );
        output
    }
}

impl GeluGradient for CubeBackend {
    fn gelu_gradient(gradient: CubeTensor, x: CubeTensor) -> CubeTensor {
        let (gradient, x) = (contiguous(gradient), contiguous(x));
        let (output, numbers) = (unwritten(&x, x.shape(), x.dtype), numbers(&x));
        let (count, units) = unit_each(x.shape().num_elements());
        gelu_backward::launch(
            &x.client.clone(),
            count,
            units,
            gradient.into_tensor_arg(),
            x.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            numbers,
        );
        output
    }
}
