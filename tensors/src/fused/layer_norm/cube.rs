//! Layer normalisation on CubeCL's devices.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::operation::{LayerNormGradient, LayerNormOps};
use crate::fused::cube::rows::sum as sum_of;
use crate::fused::cube::{contiguous, cube_each_row, numbers, rows_of, unit_each, unwritten};

/// Rows whose shares of the gradients of weight and bias a unit adds up.
const CHUNK: usize = 64;
/// Columns of a cube of that kernel.
const COLUMNS: u32 = 64;

/// An element of what is normalised.
#[cube]
fn element<X: Float>(x: &Tensor<X>, residual: &Tensor<X>, at: usize, #[comptime] summed: bool) -> f32 {
    let value = f32::cast_from(x[at]);
    if summed { value + f32::cast_from(residual[at]) } else { value }
}

/// Normalises the row of this cube, of `x` or of `x + residual`.
#[cube]
fn normalise_row<X: Float>(
    x: &Tensor<X>,
    residual: &Tensor<X>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    output: &mut Tensor<X>,
    moments: &mut Tensor<f32>,
    epsilon: f32,
    #[comptime] summed: bool,
    #[comptime] units: usize,
) {
    let width = weight.len();
    let start = CUBE_POS * width;
    let unit = UNIT_POS_X as usize;
    let count = f32::cast_from(width as u32);
    let mut total = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    while i < width {
        total += element(x, residual, start + i, summed);
        i += units;
    }
    let mean = sum_of(total, units) / count;
    let mut squares = 0.0f32;
    i = UNIT_POS_X as usize;
    while i < width {
        let centred = element(x, residual, start + i, summed) - mean;
        squares += centred * centred;
        i += units;
    }
    let variance = sum_of(squares, units) / count;
    let reciprocal = 1.0 / (variance + epsilon).sqrt();
    i = UNIT_POS_X as usize;
    while i < width {
        let centred = element(x, residual, start + i, summed) - mean;
        output[start + i] = X::cast_from(centred * reciprocal * weight[i] + bias[i]);
        i += units;
    }
    if unit == 0 {
        moments[2 * CUBE_POS] = mean;
        moments[2 * CUBE_POS + 1] = reciprocal;
    }
}

#[cube(launch)]
fn normalise<X: Float>(
    x: &Tensor<X>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    output: &mut Tensor<X>,
    moments: &mut Tensor<f32>,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(X)] _numbers: ElemType,
) {
    if CUBE_POS >= moments.len() / 2 {
        terminate!();
    }
    normalise_row::<X>(x, x, weight, bias, output, moments, epsilon, false, units);
}

#[cube(launch)]
fn add_and_normalise(
    x: &Tensor<f32>,
    residual: &Tensor<f32>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    output: &mut Tensor<f32>,
    sum: &mut Tensor<f32>,
    moments: &mut Tensor<f32>,
    epsilon: f32,
    #[comptime] units: usize,
) {
    if CUBE_POS >= moments.len() / 2 {
        terminate!();
    }
    let width = weight.len();
    let start = CUBE_POS * width;
    let mut i = UNIT_POS_X as usize;
    while i < width {
        sum[start + i] = x[start + i] + residual[start + i];
        i += units;
    }
    normalise_row::<f32>(x, residual, weight, bias, output, moments, epsilon, true, units);
}

/// `r · (g w - mean(g w) - x̂ mean(g w x̂))` with the normalised row `x̂` and its reciprocal deviation `r`.
#[cube(launch)]
fn row_gradients<X: Float>(
    gradient: &Tensor<X>,
    x: &Tensor<X>,
    moments: &Tensor<f32>,
    weight: &Tensor<f32>,
    output: &mut Tensor<X>,
    #[comptime] units: usize,
    #[define(X)] _numbers: ElemType,
) {
    if CUBE_POS >= moments.len() / 2 {
        terminate!();
    }
    let width = weight.len();
    let start = CUBE_POS * width;
    let count = f32::cast_from(width as u32);
    let mean = moments[2 * CUBE_POS];
    let reciprocal = moments[2 * CUBE_POS + 1];
    let mut total = 0.0f32;
    let mut along = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    while i < width {
        let weighed = f32::cast_from(gradient[start + i]) * weight[i];
        total += weighed;
        along += weighed * (f32::cast_from(x[start + i]) - mean);
        i += units;
    }
    let mean_gradient = sum_of(total, units) / count;
    let projection = sum_of(along, units) * reciprocal / count;
    i = UNIT_POS_X as usize;
    while i < width {
        let normalised = (f32::cast_from(x[start + i]) - mean) * reciprocal;
        let weighed = f32::cast_from(gradient[start + i]) * weight[i];
        output[start + i] = X::cast_from(reciprocal * (weighed - mean_gradient - normalised * projection));
        i += units;
    }
}

/// Each column's shares of the gradients of weight and bias, of each chunk of rows: `[chunks, 2, width]`.
#[cube(launch)]
fn chunk_gradients<X: Float>(
    gradient: &Tensor<X>,
    x: &Tensor<X>,
    moments: &Tensor<f32>,
    shares: &mut Tensor<f32>,
    width: u32,
    #[comptime] chunk: usize,
    #[define(X)] _numbers: ElemType,
) {
    let width = width as usize;
    let column = ABSOLUTE_POS_X as usize;
    if column >= width {
        terminate!();
    }
    let first = CUBE_POS_Y as usize * chunk;
    let end = min(first + chunk, moments.len() / 2);
    let mut weight = 0.0f32;
    let mut bias = 0.0f32;
    for row in first..end {
        let gradient = f32::cast_from(gradient[row * width + column]);
        let centred = f32::cast_from(x[row * width + column]) - moments[2 * row];
        weight += gradient * centred * moments[2 * row + 1];
        bias += gradient;
    }
    let place = CUBE_POS_Y as usize * 2 * width + column;
    shares[place] = weight;
    shares[place + width] = bias;
}

/// The sums of all chunks' shares, in their order.
#[cube(launch)]
fn add_chunks(shares: &Tensor<f32>, weight: &mut Tensor<f32>, bias: &mut Tensor<f32>) {
    let width = weight.len();
    let column = ABSOLUTE_POS;
    if column >= width {
        terminate!();
    }
    let chunks = shares.len() / (2 * width);
    let mut of_weight = 0.0f32;
    let mut of_bias = 0.0f32;
    for chunk in 0..chunks {
        of_weight += shares[chunk * 2 * width + column];
        of_bias += shares[chunk * 2 * width + width + column];
    }
    weight[column] = of_weight;
    bias[column] = of_bias;
}

impl LayerNormOps for CubeBackend {
    fn fused_layer_norm(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, epsilon: f32) -> CubeTensor {
        Self::normalised(x, weight, bias, epsilon).0
    }

    fn fused_layer_norm_of_sum(
        x: CubeTensor,
        residual: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        epsilon: f32,
    ) -> CubeTensor {
        Self::normalised_sum(x, residual, weight, bias, epsilon).0
    }
}

impl LayerNormGradient for CubeBackend {
    fn normalised(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        epsilon: f32,
    ) -> (CubeTensor, CubeTensor) {
        let [x, weight, bias] = [x, weight, bias].map(contiguous);
        let (_, rows) = rows_of(&x);
        let (output, moments) = (unwritten(&x, x.shape(), x.dtype), unwritten(&x, [rows, 2], DType::F32));
        let ((cubes, dim, units), numbers) = (cube_each_row(&x), numbers(&x));
        normalise::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.into_tensor_arg(),
            weight.into_tensor_arg(),
            bias.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            moments.clone().into_tensor_arg(),
            epsilon,
            units,
            numbers,
        );
        (output, moments)
    }

    fn normalised_sum(
        x: CubeTensor,
        residual: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        epsilon: f32,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [x, residual, weight, bias] = [x, residual, weight, bias].map(contiguous);
        let (_, rows) = rows_of(&x);
        let (output, sum) = (unwritten(&x, x.shape(), x.dtype), unwritten(&x, x.shape(), x.dtype));
        let moments = unwritten(&x, [rows, 2], DType::F32);
        let (cubes, dim, units) = cube_each_row(&x);
        add_and_normalise::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.into_tensor_arg(),
            residual.into_tensor_arg(),
            weight.into_tensor_arg(),
            bias.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            sum.clone().into_tensor_arg(),
            moments.clone().into_tensor_arg(),
            epsilon,
            units,
        );
        (output, sum, moments)
    }

    fn layer_norm_gradient(
        gradient: CubeTensor,
        sum: CubeTensor,
        moments: CubeTensor,
        weight: CubeTensor,
    ) -> CubeTensor {
        let [gradient, sum, moments, weight] = [gradient, sum, moments, weight].map(contiguous);
        let ((cubes, dim, units), numbers) = (cube_each_row(&sum), numbers(&sum));
        let of_sum = unwritten(&sum, sum.shape(), sum.dtype);
        row_gradients::launch(
            &sum.client.clone(),
            cubes,
            dim,
            gradient.into_tensor_arg(),
            sum.into_tensor_arg(),
            moments.into_tensor_arg(),
            weight.into_tensor_arg(),
            of_sum.clone().into_tensor_arg(),
            units,
            numbers,
        );
        of_sum
    }

    fn layer_norm_gradients(
        gradient: CubeTensor,
        sum: CubeTensor,
        moments: CubeTensor,
        weight: CubeTensor,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [gradient, sum, moments, weight] = [gradient, sum, moments, weight].map(contiguous);
        let (width, rows) = rows_of(&sum);
        let (client, numbers) = (sum.client.clone(), numbers(&sum));
        let of_sum =
            Self::layer_norm_gradient(gradient.clone(), sum.clone(), moments.clone(), weight.clone());
        let chunks = rows.div_ceil(CHUNK);
        let shares = unwritten(&sum, [chunks, 2, width], DType::F32);
        chunk_gradients::launch(
            &client,
            CubeCount::Static((width as u32).div_ceil(COLUMNS), chunks as u32, 1),
            CubeDim::new_1d(COLUMNS),
            gradient.into_tensor_arg(),
            sum.into_tensor_arg(),
            moments.into_tensor_arg(),
            shares.clone().into_tensor_arg(),
            width as u32,
            CHUNK,
            numbers,
        );
        let (of_weight, of_bias) =
            (unwritten(&weight, weight.shape(), DType::F32), unwritten(&weight, weight.shape(), DType::F32));
        let (cubes, units) = unit_each(width);
        add_chunks::launch(
            &client,
            cubes,
            units,
            shares.into_tensor_arg(),
            of_weight.clone().into_tensor_arg(),
            of_bias.clone().into_tensor_arg(),
        );
        (of_sum, of_weight, of_bias)
    }
}
