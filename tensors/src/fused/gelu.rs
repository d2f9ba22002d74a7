//! The exact GELU.

mod autodiff;
pub(in crate::fused) mod kernel;
mod operation;

use std::f64::consts::FRAC_1_SQRT_2;

use burn::backend::flex::FlexTensor;
use burn::backend::{Dispatch, Flex, TensorMetadata};
use burn::tensor::Tensor;

use crate::device::cast::through_f32;
use crate::fused::flex::{contiguous, is_fused, tensor, values};
use operation::GeluOps;

/// The exact GELU, `x · Φ(x)`, of every element (Hendrycks & Gimpel, arXiv 1606.08415); of bf16, computed in
/// float32.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    through_f32(x, |x| match is_fused(&x) {
        true => Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch())),
        false => composed(x),
    })
}

/// `x/2 · (1 + erf(x/√2))`. Not burn's function: on devices that have no derivative of their own it takes
/// that of the approximation by tanh, which is up to 9e-4 off.
fn composed<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let twice_the_share = (x.clone() * FRAC_1_SQRT_2).erf() + 1.0;
    x * twice_the_share * 0.5
}

impl GeluOps for Flex {
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        let shape = x.shape().to_vec();
        tensor(kernel::forward(values(&contiguous(x))), shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::agreement::{agree, wave};
    use burn::tensor::{DType, Device, FloatDType};

    #[test]
    fn gelu_equals_its_composition() {
        let device = Device::flex().autodiff();
        let x = wave([3, 41, 70], 0.73, &device) * 2.0;
        agree("gelu", [x], |[x]| gelu(x), |[x]| composed(x));
    }

    #[test]
    fn other_precisions_take_the_composition() {
        let x = wave([2, 8], 0.73, &Device::flex()).cast(FloatDType::F64);
        assert!(!is_fused(&x));
        assert_eq!(gelu(x.clone()).dtype(), DType::F64);
    }
}
