//! The fused operations on the CPU backend's tensors.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::TensorData;

use super::FusedOps;
use super::kernels::{gelu, layer_norm, softmax};

/// The values of a tensor that [`super::is_fused`] has let through.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    // Contiguous float32: `contiguous` made it so, `is_fused` has seen the type.
    tensor.as_slice::<f32>().unwrap_or_default()
}

/// The tensor with its values in the order of their indices.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.is_contiguous() {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}

/// A new tensor.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Vec<usize>>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// Output, `x + residual` and each row's mean and reciprocal deviation.
pub(super) struct Normalised {
    pub(super) output: FlexTensor,
    pub(super) sum: FlexTensor,
    pub(super) moments: Vec<layer_norm::Moments>,
}

pub(super) fn normalise(
    x: FlexTensor,
    residual: Option<FlexTensor>,
    weight: &FlexTensor,
    bias: &FlexTensor,
    epsilon: f32,
) -> Normalised {
    let shape = x.shape().to_vec();
    let x = contiguous(x);
    let residual = residual.map(contiguous);
    let sum = match &residual {
        Some(residual) => tensor(layer_norm::sum(values(&x), values(residual)), shape.clone()),
        None => x,
    };
    let (output, moments) = layer_norm::forward(values(&sum), values(weight), values(bias), epsilon);
    Normalised { output: tensor(output, shape), sum, moments }
}

/// For each row of the scores, the row of the mask that is added to it.
pub(super) fn mask_rows(scores: &[usize], mask: &[usize]) -> softmax::MaskRows {
    let stride = |dimension: usize, after: usize| if mask[dimension] == 1 { 0 } else { after };
    softmax::MaskRows {
        heads: scores[1],
        queries: scores[2],
        strides: [stride(0, mask[1] * mask[2]), stride(1, mask[2]), stride(2, 1)],
    }
}

pub(super) fn softmax_of(scores: FlexTensor, mask: Option<FlexTensor>, scale: f32) -> FlexTensor {
    let shape = scores.shape().to_vec();
    let scores = contiguous(scores);
    let mask = mask.map(contiguous);
    let rows = mask.as_ref().map(|mask| (values(mask), mask_rows(&shape, &mask.shape().to_vec())));
    // The last of the four dimensions.
    let width = shape[3];
    tensor(softmax::forward(values(&scores), width, rows, scale), shape)
}

impl FusedOps for Flex {
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        let shape = x.shape().to_vec();
        tensor(gelu::forward(values(&contiguous(x))), shape)
    }

    fn fused_layer_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, epsilon: f32) -> FlexTensor {
        normalise(x, None, &contiguous(weight), &contiguous(bias), epsilon).output
    }

    fn fused_layer_norm_of_sum(
        x: FlexTensor,
        residual: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        epsilon: f32,
    ) -> FlexTensor {
        normalise(x, Some(residual), &contiguous(weight), &contiguous(bias), epsilon).output
    }

    fn fused_softmax(scores: FlexTensor, scale: f32) -> FlexTensor {
        softmax_of(scores, None, scale)
    }

    fn fused_masked_softmax(scores: FlexTensor, mask: FlexTensor, scale: f32) -> FlexTensor {
        softmax_of(scores, Some(mask), scale)
    }
}
