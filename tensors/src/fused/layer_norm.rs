//! Layer normalisation, of a tensor or of a sum of two.

mod autodiff;
#[cfg(feature = "cube")]
mod cube;
mod flex;
mod kernel;
mod operation;

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor, module};

use crate::device::cast::{self, in_f32};
use crate::fused::place::{is_fused, through_f32};
use operation::LayerNormOps;

/// Layer normalisation of `x`, or of `x + residual`, over the last dimension (Ba et al., arXiv 1607.06450);
/// of bf16, computed in float32.
///
/// # Shapes
/// - x, residual and output `[..., width]`; weight and bias `[width]`
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    residual: Option<Tensor<D>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let Some(residual) = residual else {
        return through_f32(x, |x| layer_norm_of_numbers(x, None, weight, bias, epsilon));
    };
    // The sum keeps float32's digits.
    let residual = if x.dtype() == DType::BF16 { in_f32(residual) } else { residual };
    cast::through_f32(x, |x| layer_norm_of_numbers(x, Some(residual), weight, bias, epsilon))
}

fn layer_norm_of_numbers<const D: usize>(
    x: Tensor<D>,
    residual: Option<Tensor<D>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    if !is_fused(&x) {
        return composed(x, residual, weight, bias, epsilon);
    }
    let (x, epsilon) = (x.into_dispatch(), epsilon as f32);
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(match residual {
        Some(residual) => {
            Dispatch::fused_layer_norm_of_sum(x, residual.into_dispatch(), weight, bias, epsilon)
        }
        None => Dispatch::fused_layer_norm(x, weight, bias, epsilon),
    })
}

fn composed<const D: usize>(
    x: Tensor<D>,
    residual: Option<Tensor<D>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let x = match residual {
        Some(residual) => x + residual,
        None => x,
    };
    module::layer_norm(x, weight, Some(bias), epsilon)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::agreement::{agree, device, is_rounded, wave};

    #[test]
    fn layer_norm_equals_its_composition() {
        let device = device().autodiff();
        for [rows, width] in [[3, 5], [150, 48], [2, 1408]] {
            let row = |speed| wave([1, 1, width], speed, &device);
            let inputs = [wave([2, rows, width], 0.73, &device), wave([2, rows, width], 0.21, &device)];
            let [x, residual] = inputs.clone();
            let all = [x, residual, row(0.5), row(0.9)];
            let flat = |x: Tensor<3>| x.reshape([width]);
            agree(
                "layer norm of a sum",
                all.clone(),
                |[x, r, w, b]| layer_norm(x, Some(r), flat(w), flat(b), 1e-12),
                |[x, r, w, b]| composed(x, Some(r), flat(w), flat(b), 1e-12),
            );
            let [x, _, w, b] = all;
            agree(
                "layer norm",
                [x, w, b],
                |[x, w, b]| layer_norm(x, None, flat(w), flat(b), 1e-5),
                |[x, w, b]| composed(x, None, flat(w), flat(b), 1e-5),
            );
        }
    }

    #[test]
    fn of_bf16_it_is_rounded_once() {
        let device = device().autodiff();
        let [weight, bias] = [0.5, 0.9].map(|speed| wave([70], speed, &device));
        let x = || wave([3, 41, 70], 0.73, &device);
        let of = |x, residual| layer_norm(x, residual, weight.clone(), bias.clone(), 1e-5);
        is_rounded("layer norm", x(), |x| of(x, None));
        is_rounded("layer norm of a sum", x(), |x| of(x.clone(), Some(x * 0.5)));
    }
}
