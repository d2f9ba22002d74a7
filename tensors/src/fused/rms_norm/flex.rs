//! Division by the root mean square on the CPU.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};

use super::kernel;
use super::operation::{RmsNormGradient, RmsNormOps};
use crate::fused::flex::{changed, contiguous, tensor, values};

impl RmsNormOps for Flex {
    fn fused_rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f32) -> FlexTensor {
        Self::rms_normalised(x, weight, epsilon).0
    }
}

impl RmsNormGradient for Flex {
    fn rms_normalised(x: FlexTensor, weight: FlexTensor, epsilon: f32) -> (FlexTensor, FlexTensor) {
        let shape = x.shape().to_vec();
        let (output, reciprocals) =
            kernel::forward(values(&contiguous(x)), values(&contiguous(weight)), epsilon);
        let rows = reciprocals.len();
        (tensor(output, shape), tensor(reciprocals, [rows]))
    }

    fn rms_norm_gradient(
        gradient: FlexTensor,
        x: FlexTensor,
        reciprocals: FlexTensor,
        weight: FlexTensor,
    ) -> FlexTensor {
        Self::rms_norm_gradients(gradient, x, reciprocals, weight).0
    }

    fn rms_norm_gradients(
        gradient: FlexTensor,
        x: FlexTensor,
        reciprocals: FlexTensor,
        weight: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let mut of_weight = Vec::new();
        let of_x = changed(gradient, |gradient| {
            of_weight =
                kernel::backward_in_place(gradient, values(&x), values(&reciprocals), values(&weight));
        });
        (of_x, tensor(of_weight, weight.shape().to_vec()))
    }
}
