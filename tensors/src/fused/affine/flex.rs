//! The affine map on the CPU backend's tensors.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape};

use super::{AffineOps, Numbers};
use crate::device::compute::Compute;
use crate::fused::flex::{contiguous, factor, result, tensor, values};
use crate::fused::gelu::kernel::forward as gelu;
use crate::fused::kernels::few_rows::{self, FEW, Matrix};
use crate::fused::kernels::rows;
use crate::fused::product::{product, product_with_rows};

/// `[..., width]` as rows in the order of their indices, `[rows, width]`.
pub(super) fn as_rows(x: FlexTensor) -> FlexTensor {
    let shape = x.shape().to_vec();
    let width = shape.last().copied().unwrap_or(1);
    let count = shape.iter().product::<usize>() / width;
    contiguous(x).reshape(Shape::from(vec![count, width]))
}

/// The GELU of float32 in the order of its indices, as rows of a factor.
pub(super) fn gelu_rows(x: &FlexTensor, compute: Compute) -> FlexTensor {
    factor(as_rows(tensor(gelu(values(x)), x.shape().to_vec())), compute)
}

/// `x·Wᵀ + b` of factors as they are multiplied, in the shape `[..., out]`.
pub(super) fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<FlexTensor>,
    shape: Vec<usize>,
    numbers: Numbers,
) -> FlexTensor {
    let mut output = product_with_rows(x, weight);
    if let Some(bias) = bias {
        // Added to the sums, not a factor: float32 is not rounded.
        let bias = factor(contiguous(bias), Compute::F32);
        rows::add_to_each(output.storage_mut::<f32>(), values(&bias));
    }
    result(output.reshape(Shape::from(shape)), numbers.output)
}

/// The shape of `x` with the map's output as its last dimension.
pub(super) fn output_shape(x: &FlexTensor, weight: &FlexTensor) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    if let (Some(last), Some(output)) = (shape.last_mut(), weight.shape().to_vec().first()) {
        *last = *output;
    }
    shape
}

/// `dY·W`, in the shape `[..., in]`.
pub(super) fn gradient_of_x(gradient: &FlexTensor, weight: &FlexTensor, shape: Vec<usize>) -> FlexTensor {
    product(gradient, weight).reshape(Shape::from(shape))
}

/// `dYᵀ·X`, `[out, in]`.
pub(super) fn gradient_of_weight(gradient: &FlexTensor, x: &FlexTensor) -> FlexTensor {
    product(&gradient.transpose(0, 1), x)
}

/// `Σ dY` over the rows, `[out]`.
pub(super) fn gradient_of_bias(gradient: &FlexTensor) -> FlexTensor {
    // Rows have two dimensions.
    let width = gradient.shape().to_vec()[1];
    tensor(rows::sum(values(gradient), width), vec![width])
}

/// `x·Wᵀ + b` of few rows, where these and all else are float32.
fn few(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    Numbers { compute, output }: Numbers,
) -> Option<FlexTensor> {
    let all_f32 = [Some(x), Some(weight), bias].iter().flatten().all(|tensor| tensor.dtype() == DType::F32);
    let rows = x.shape().num_elements() / weight.shape()[1];
    if !all_f32 || compute != Compute::F32 || output != DType::F32 || rows > FEW {
        return None;
    }
    let shape = output_shape(x, weight);
    let (x, weight) = (contiguous(x.clone()), contiguous(weight.clone()));
    let bias = bias.map(|bias| contiguous(bias.clone()));
    let matrix = Matrix { numbers: values(&weight), width: weight.shape()[1], scales: None };
    Some(tensor(few_rows::product(values(&x), matrix, bias.as_ref().map(values)), shape))
}

impl AffineOps for Flex {
    fn affine_rows(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, numbers: Numbers) -> FlexTensor {
        if let Some(output) = few(&x, &weight, Some(&bias), numbers) {
            return output;
        }
        let (shape, compute) = (output_shape(&x, &weight), numbers.compute);
        forward(&factor(as_rows(x), compute), &factor(weight, compute), Some(bias), shape, numbers)
    }

    fn affine_of_gelu(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, numbers: Numbers) -> FlexTensor {
        let (shape, compute) = (output_shape(&x, &weight), numbers.compute);
        let rows = gelu_rows(&contiguous(x), compute);
        forward(&rows, &factor(weight, compute), Some(bias), shape, numbers)
    }

    fn linear_rows(x: FlexTensor, weight: FlexTensor, numbers: Numbers) -> FlexTensor {
        if let Some(output) = few(&x, &weight, None, numbers) {
            return output;
        }
        let (shape, compute) = (output_shape(&x, &weight), numbers.compute);
        forward(&factor(as_rows(x), compute), &factor(weight, compute), None, shape, numbers)
    }
}
