//! Division by the root mean square, of rows.

mod autodiff;
#[cfg(feature = "cube")]
mod cube;
mod flex;
mod kernel;
mod operation;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::fused::place::{is_fused, is_weight, through_f32};
use operation::RmsNormOps;

/// `x / √(mean(x²) + ε) · weight` over the last dimension (Zhang & Sennrich, arXiv 1910.07467); of bf16,
/// computed in float32.
///
/// # Shapes
/// - x and output `[..., width]`; weight `[width]`
pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    through_f32(x, |x| match is_fused(&x) && is_weight(&weight) {
        true => {
            let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
            Tensor::from_dispatch(Dispatch::fused_rms_norm(x, weight, epsilon as f32))
        }
        false => composed(x, weight, epsilon),
    })
}

fn composed<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let size = (x.clone().square().mean_dim(D - 1) + epsilon).sqrt();
    x / size * weight.unsqueeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::agreement::{agree, device, is_rounded, wave};
    use burn::tensor::{DType, Device, FloatDType};

    #[test]
    fn rms_norm_equals_its_composition() {
        let device = device().autodiff();
        for [rows, width] in [[3, 5], [150, 48], [2, 768]] {
            let inputs = [wave([2, rows, width], 0.73, &device), wave([1, 1, width], 0.5, &device)];
            agree(
                "division by the root mean square",
                inputs,
                |[x, weight]| rms_norm(x, weight.reshape([width]), 1e-6),
                |[x, weight]| composed(x, weight.reshape([width]), 1e-6),
            );
        }
    }

    #[test]
    fn of_bf16_it_is_rounded_once() {
        let device = device().autodiff();
        let weight = wave([70], 0.5, &device);
        is_rounded("division", wave([3, 41, 70], 0.73, &device), |x| rms_norm(x, weight.clone(), 1e-6));
    }

    #[test]
    fn other_precisions_take_the_composition() {
        let x = wave([2, 8], 0.73, &Device::flex()).cast(FloatDType::F64);
        let weight = wave([8], 0.5, &Device::flex()).cast(FloatDType::F64);
        assert_eq!(rms_norm(x, weight, 1e-6).dtype(), DType::F64);
    }
}
