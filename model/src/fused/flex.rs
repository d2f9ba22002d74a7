//! The fused operations on the CPU backend's tensors.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, TensorData};

use super::kernels::{bf16, cross_entropy, dropout, gelu, layer_norm};
use super::{FusedOps, Mask, Targets};
use crate::device::compute::Compute;

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

/// A tensor as a factor of float32 products: widened, or rounded where these are computed in bf16. What is summed stays
/// float32.
pub(super) fn factor(x: FlexTensor, compute: Compute) -> FlexTensor {
    let shape = x.shape().to_vec();
    match (x.dtype(), compute) {
        // Contiguous bf16: `contiguous` made it so, the match has seen the type.
        (DType::BF16, _) => {
            tensor(bf16::widened(contiguous(x).as_slice::<half::bf16>().unwrap_or_default()), shape)
        }
        (_, Compute::F32) => x,
        (_, Compute::Bf16) => tensor(bf16::rounded(values(&contiguous(x))), shape),
    }
}

/// float32 in these numbers.
pub(super) fn result(x: FlexTensor, numbers: DType) -> FlexTensor {
    match numbers {
        DType::BF16 => {
            let shape = x.shape().to_vec();
            let narrowed = bf16::narrowed(values(&contiguous(x)));
            FlexTensor::from_data(TensorData::new(narrowed, shape))
        }
        _ => x,
    }
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

    fn fused_dropout(x: FlexTensor, mask: Mask) -> FlexTensor {
        let shape = x.shape().to_vec();
        tensor(dropout::apply(values(&contiguous(x)), mask), shape)
    }

    fn fused_cross_entropy(logits: FlexTensor, targets: Targets) -> FlexTensor {
        // The last of the two dimensions.
        let width = logits.shape().to_vec()[1];
        let losses = cross_entropy::losses(values(&contiguous(logits)), width, &targets);
        tensor(losses, vec![targets.labels.len()])
    }
}
