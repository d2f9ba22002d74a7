//! Division by the root mean square on CubeCL's devices.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, FloatDType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::operation::{RmsNormGradient, RmsNormOps};
use crate::fused::cube::rows::sum as sum_of;
use crate::fused::cube::{contiguous, cube_each_row, numbers, rows_of, unwritten};

#[cube(launch)]
fn divide<X: Float>(
    x: &Tensor<X>,
    weight: &Tensor<f32>,
    output: &mut Tensor<X>,
    reciprocals: &mut Tensor<f32>,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(X)] _numbers: ElemType,
) {
    let row = CUBE_POS;
    if row >= reciprocals.len() {
        terminate!();
    }
    let width = weight.len();
    let start = row * width;
    let mut squares = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    while i < width {
        let value = f32::cast_from(x[start + i]);
        squares += value * value;
        i += units;
    }
    let mean = sum_of(squares, units) / f32::cast_from(width as u32);
    let reciprocal = 1.0 / (mean + epsilon).sqrt();
    i = UNIT_POS_X as usize;
    while i < width {
        output[start + i] = X::cast_from(f32::cast_from(x[start + i]) * reciprocal * weight[i]);
        i += units;
    }
    if UNIT_POS_X == 0 {
        reciprocals[row] = reciprocal;
    }
}

/// `r · (g w - x̂ mean(g w x̂))` with the divided row `x̂` and the reciprocal `r`.
#[cube(launch)]
fn row_gradients<X: Float>(
    gradient: &Tensor<X>,
    x: &Tensor<X>,
    reciprocals: &Tensor<f32>,
    weight: &Tensor<f32>,
    output: &mut Tensor<X>,
    #[comptime] units: usize,
    #[define(X)] _numbers: ElemType,
) {
    let row = CUBE_POS;
    if row >= reciprocals.len() {
        terminate!();
    }
    let width = weight.len();
    let start = row * width;
    let reciprocal = reciprocals[row];
    let mut along = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    while i < width {
        along += f32::cast_from(gradient[start + i]) * weight[i] * f32::cast_from(x[start + i]);
        i += units;
    }
    let projection = sum_of(along, units) * reciprocal / f32::cast_from(width as u32);
    i = UNIT_POS_X as usize;
    while i < width {
        let weighed = f32::cast_from(gradient[start + i]) * weight[i];
        let along = f32::cast_from(x[start + i]) * reciprocal * projection;
        output[start + i] = X::cast_from(reciprocal * (weighed - along));
        i += units;
    }
}

impl RmsNormOps for CubeBackend {
    fn fused_rms_norm(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
        Self::rms_normalised(x, weight, epsilon).0
    }
}

impl RmsNormGradient for CubeBackend {
    fn rms_normalised(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> (CubeTensor, CubeTensor) {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let (_, rows) = rows_of(&x);
        let (output, reciprocals) = (unwritten(&x, x.shape(), x.dtype), unwritten(&x, [rows], DType::F32));
        let ((cubes, dim, units), numbers) = (cube_each_row(&x), numbers(&x));
        divide::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.into_tensor_arg(),
            weight.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            reciprocals.clone().into_tensor_arg(),
            epsilon,
            units,
            numbers,
        );
        (output, reciprocals)
    }

    fn rms_norm_gradient(
        gradient: CubeTensor,
        x: CubeTensor,
        reciprocals: CubeTensor,
        weight: CubeTensor,
    ) -> CubeTensor {
        let [gradient, x, reciprocals, weight] = [gradient, x, reciprocals, weight].map(contiguous);
        let output = unwritten(&x, x.shape(), x.dtype);
        let ((cubes, dim, units), numbers) = (cube_each_row(&x), numbers(&x));
        row_gradients::launch(
            &x.client.clone(),
            cubes,
            dim,
            gradient.into_tensor_arg(),
            x.into_tensor_arg(),
            reciprocals.into_tensor_arg(),
            weight.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            units,
            numbers,
        );
        output
    }

    /// The weight's is composed: nothing trains such a norm's weight but a language model of its own.
    fn rms_norm_gradients(
        gradient: CubeTensor,
        x: CubeTensor,
        reciprocals: CubeTensor,
        weight: CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        let (width, rows) = rows_of(&x);
        let flat = |x: &CubeTensor| {
            Self::float_cast(Self::float_reshape(x.clone(), Shape::from([rows, width])), FloatDType::F32)
        };
        let divided =
            Self::float_mul(flat(&x), Self::float_reshape(reciprocals.clone(), Shape::from([rows, 1])));
        let of_weight = Self::float_sum_dim(Self::float_mul(flat(&gradient), divided), 0);
        let of_weight = Self::float_reshape(of_weight, weight.shape());
        (Self::rms_norm_gradient(gradient, x, reciprocals, weight), of_weight)
    }
}
