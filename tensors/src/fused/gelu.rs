//! The exact GELU.

mod autodiff;
#[cfg(feature = "cube")]
mod cube;
mod flex;
pub(in crate::fused) mod kernel;
mod operation;

use std::f64::consts::FRAC_1_SQRT_2;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::fused::place::{is_fused, through_f32};
#[cfg(feature = "cube")]
pub(in crate::fused) use operation::GeluGradient;
pub(in crate::fused) use operation::GeluOps;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::agreement::{agree, device, is_rounded, wave};
    use burn::tensor::{DType, Device, FloatDType};

    #[test]
    fn gelu_equals_its_composition() {
        let device = device().autodiff();
        let x = wave([3, 41, 70], 0.73, &device) * 2.0;
        agree("gelu", [x], |[x]| gelu(x), |[x]| composed(x));
    }

    #[test]
    fn of_bf16_it_is_rounded_once() {
        is_rounded("gelu", wave([3, 41, 70], 0.73, &device().autodiff()), gelu);
    }

    #[test]
    fn other_precisions_take_the_composition() {
        let x = wave([2, 8], 0.73, &Device::flex()).cast(FloatDType::F64);
        assert!(!is_fused(&x));
        assert_eq!(gelu(x.clone()).dtype(), DType::F64);
    }
}
