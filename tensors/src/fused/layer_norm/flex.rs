//! Layer normalisation on the CPU.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};

use super::kernel;
use super::operation::LayerNormOps;
use crate::fused::flex::{changed, contiguous, tensor, values};

/// Output, `x + residual` and each row's mean and reciprocal deviation.
pub(super) struct Normalised {
    pub(super) output: FlexTensor,
    pub(super) sum: FlexTensor,
    pub(super) moments: Vec<kernel::Moments>,
}

pub(super) fn normalise(
    x: FlexTensor,
    residual: Option<FlexTensor>,
    weight: &FlexTensor,
    bias: &FlexTensor,
    epsilon: f32,
) -> Normalised {
    let shape = x.shape().to_vec();
    let sum = match residual.map(contiguous) {
        Some(residual) => changed(x, |x| kernel::add(x, values(&residual))),
        None => contiguous(x),
    };
    let (output, moments) = kernel::forward(values(&sum), values(weight), values(bias), epsilon);
    Normalised { output: tensor(output, shape), sum, moments }
}

impl LayerNormOps for Flex {
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
}
