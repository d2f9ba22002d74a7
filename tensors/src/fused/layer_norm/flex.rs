//! Layer normalisation on the CPU.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};

use super::kernel;
use super::operation::{LayerNormGradient, LayerNormOps};
use crate::fused::flex::{changed, contiguous, tensor, values};

/// Output, `x + residual`, and the moments.
fn normalise(
    x: FlexTensor,
    residual: Option<FlexTensor>,
    [weight, bias]: [FlexTensor; 2],
    epsilon: f32,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let shape = x.shape().to_vec();
    let (weight, bias) = (contiguous(weight), contiguous(bias));
    let sum = match residual.map(contiguous) {
        Some(residual) => changed(x, |x| kernel::add(x, values(&residual))),
        None => contiguous(x),
    };
    let (output, moments) = kernel::forward(values(&sum), values(&weight), values(&bias), epsilon);
    let rows = moments.len();
    (tensor(output, shape), sum, tensor(moments.into_flattened(), [rows, 2]))
}

impl LayerNormOps for Flex {
    fn fused_layer_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, epsilon: f32) -> FlexTensor {
        normalise(x, None, [weight, bias], epsilon).0
    }

    fn fused_layer_norm_of_sum(
        x: FlexTensor,
        residual: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        epsilon: f32,
    ) -> FlexTensor {
        normalise(x, Some(residual), [weight, bias], epsilon).0
    }
}

impl LayerNormGradient for Flex {
    fn normalised(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        epsilon: f32,
    ) -> (FlexTensor, FlexTensor) {
        let (output, _, moments) = normalise(x, None, [weight, bias], epsilon);
        (output, moments)
    }

    fn normalised_sum(
        x: FlexTensor,
        residual: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        epsilon: f32,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        normalise(x, Some(residual), [weight, bias], epsilon)
    }

    fn layer_norm_gradient(
        gradient: FlexTensor,
        sum: FlexTensor,
        moments: FlexTensor,
        weight: FlexTensor,
    ) -> FlexTensor {
        Self::layer_norm_gradients(gradient, sum, moments, weight).0
    }

    fn layer_norm_gradients(
        gradient: FlexTensor,
        sum: FlexTensor,
        moments: FlexTensor,
        weight: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (sum, weight) = (contiguous(sum), contiguous(weight));
        let (moments, _) = values(&moments).as_chunks::<2>();
        let mut of_rows = [const { Vec::new() }; 2];
        let of_sum = changed(gradient, |gradient| {
            of_rows = kernel::backward_in_place(gradient, values(&sum), moments, values(&weight));
        });
        let [of_weight, of_bias] = of_rows.map(|values| tensor(values, weight.shape().to_vec()));
        (of_sum, of_weight, of_bias)
    }
}
