//! The activations of language models' feed-forward parts: ReLU, and the GELU by a hyperbolic tangent,
//! multiplied by a gate.

mod autodiff;
mod kernel;
mod operation;

use burn::backend::flex::FlexTensor;
use burn::backend::{Dispatch, Flex, TensorMetadata};
use burn::tensor::{Tensor, activation};

use crate::device::cast::through_f32;
use crate::fused::flex::{changed, contiguous, tensor, values};
use crate::fused::place::is_fused_on_cpu;
use operation::ActivationOps;

/// `max(x, 0)`.
pub(crate) fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_fused_on_cpu(&x) {
        true => Tensor::from_dispatch(Dispatch::fused_relu(x.into_dispatch())),
        false => activation::relu(x),
    }
}

/// `gelu(x) · gate`, with the GELU by a hyperbolic tangent; of bf16, the GELU is computed in float32.
///
/// # Shapes
/// - x, gate and output `[...]`
pub(crate) fn gated_gelu<const D: usize>(x: Tensor<D>, gate: Tensor<D>) -> Tensor<D> {
    match is_fused_on_cpu(&x) && is_fused_on_cpu(&gate) && x.dims() == gate.dims() {
        true => Tensor::from_dispatch(Dispatch::fused_gated_gelu(x.into_dispatch(), gate.into_dispatch())),
        false => through_f32(x, activation::gelu_approximate) * gate,
    }
}

impl ActivationOps for Flex {
    fn fused_relu(x: FlexTensor) -> FlexTensor {
        changed(x, kernel::relu_in_place)
    }

    fn fused_gated_gelu(x: FlexTensor, gate: FlexTensor) -> FlexTensor {
        let shape = x.shape().to_vec();
        let (x, gate) = (contiguous(x), contiguous(gate));
        tensor(kernel::gated_gelu(values(&x), values(&gate)), shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::agreement::{agree, wave};
    use burn::tensor::{DType, Device, FloatDType};

    #[test]
    fn relu_equals_burn_s_and_keeps_what_is_no_number() {
        let device = Device::flex().autodiff();
        let x = wave([3, 41, 700], 0.73, &device);
        agree("relu", [x], |[x]| relu(x), |[x]| activation::relu(x));
        let odd = Tensor::<1>::from_floats([f32::NAN, -1.0, 0.0, 2.0], &Device::flex());
        let got = relu(odd.clone()).into_data();
        let got = got.as_slice::<f32>().unwrap();
        assert!(got[0].is_nan());
        assert_eq!(got[1..], [0.0, 0.0, 2.0]);
        assert!(odd.into_data().as_slice::<f32>().unwrap()[1] == -1.0, "its input is as it was");
    }

    #[test]
    fn the_gated_gelu_equals_its_composition() {
        let device = Device::flex().autodiff();
        let inputs = [wave([3, 41, 700], 0.73, &device) * 2.0, wave([3, 41, 700], 0.31, &device)];
        agree(
            "gated gelu",
            inputs,
            |[x, gate]| gated_gelu(x, gate),
            |[x, gate]| activation::gelu_approximate(x) * gate,
        );
        let wide = |speed| wave([2, 8], speed, &Device::flex()).cast(FloatDType::F64);
        assert_eq!(gated_gelu(wide(0.73), wide(0.31)).dtype(), DType::F64);
    }
}
