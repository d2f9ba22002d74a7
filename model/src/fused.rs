//! What burn composes of many operations, or computes in another layout, each as one operation with its own backward pass
//! on the CPU: GELU, layer normalisation (of a sum), dropout, attention, softmax cross-entropy, the affine map.
//!
//! Every function here has its composition of burn's own operations beside it, computes that on other devices and in
//! other precisions, and is tested against it. A result depends on the values alone: sums run over fixed chunks and
//! lanes, whatever the number of threads and the width of the processor's vectors.

mod affine;
#[cfg(test)]
mod agreement;
mod attention;
mod autodiff;
mod decomposed;
mod flex;
mod kernels;

pub(crate) use affine::{Numbers, linear};
pub(crate) use attention::attention;
pub(crate) use kernels::cross_entropy::Targets;
pub(crate) use kernels::dropout::{Mask, hash};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchDevice, backend_extension};
use burn::tensor::{DType, Tensor};

use crate::device::cast::{in_f32, through_f32};

/// The operations as a backend has them.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait FusedOps: Backend {
    /// The exact GELU of every element.
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `norm(x) · weight + bias` over the last dimension.
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// `norm(x + residual) · weight + bias` over the last dimension.
    fn fused_layer_norm_of_sum(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// The elements that the mask keeps, multiplied by its factor.
    fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self>;

    /// The cross-entropy of each row of logits with its label.
    fn fused_cross_entropy(logits: FloatTensor<Self>, targets: Targets) -> FloatTensor<Self>;
}

/// Whether the operations of this module take this tensor.
fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_on_cpu(x)
}

/// Whether the products of this module take this tensor.
fn is_factor<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.dtype(), DType::F32 | DType::BF16) && is_on_cpu(x)
}

fn is_on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.device().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// The exact GELU, `x · Φ(x)`, of every element (Hendrycks & Gimpel, arXiv 1606.08415); of bf16, computed in float32.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    through_f32(x, |x| match is_fused(&x) {
        true => Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch())),
        false => decomposed::gelu(x),
    })
}

/// Layer normalisation of `x`, or of `x + residual`, over the last dimension (Ba et al., arXiv 1607.06450); of bf16, computed
/// in float32.
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
    let residual =
        residual.map(|residual| if x.dtype() == DType::BF16 { in_f32(residual) } else { residual });
    through_f32(x, |x| layer_norm_in_f32(x, residual, weight, bias, epsilon))
}

fn layer_norm_in_f32<const D: usize>(
    x: Tensor<D>,
    residual: Option<Tensor<D>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    if !is_fused(&x) {
        return decomposed::layer_norm(x, residual, weight, bias, epsilon);
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

/// The elements that the mask keeps, multiplied by its factor, and zero for the others.
pub(crate) fn dropout<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    through_f32(x, |x| match is_fused(&x) {
        true => Tensor::from_dispatch(Dispatch::fused_dropout(x.into_dispatch(), mask)),
        false => decomposed::dropout(x, mask),
    })
}

/// The cross-entropy of each row of logits with its label, `scale · [(1-ε)·nll + ε/V·Σ_v −log p_v]`, and 0 for labels below 0
/// (PyTorch's `CrossEntropyLoss` with `label_smoothing` and `reduction="none"`). None where this is not fused: the gradient is
/// known without a tape, so a composition of operations would compute more than the loss needs.
///
/// # Shapes
/// - logits `[rows, classes]`; one label a row, below `classes`; output `[rows]`
pub(crate) fn cross_entropy(logits: &Tensor<2>, targets: Targets) -> Option<Tensor<1>> {
    let fused = || Dispatch::fused_cross_entropy(logits.clone().into_dispatch(), targets);
    is_fused(logits).then(|| Tensor::from_dispatch(fused()))
}

#[cfg(test)]
mod tests {
    use super::agreement::{close, wave};
    use super::*;
    use burn::tensor::Device;

    /// Output and the gradients of `inputs` of a sum of the output, weighted so that no two elements weigh the same.
    fn with_gradients<const N: usize, const D: usize>(
        inputs: [Tensor<D>; N],
        compute: impl Fn([Tensor<D>; N]) -> Tensor<D>,
    ) -> (Tensor<D>, [Tensor<D>; N]) {
        let inputs = inputs.map(|input| input.require_grad());
        let output = compute(inputs.clone());
        let weights = wave(output.dims(), 0.37, &output.device());
        let mut gradients = (output.clone() * weights).sum().backward();
        (output.inner(), inputs.map(|input| input.grad_remove(&mut gradients).unwrap()))
    }

    fn agree<const N: usize, const D: usize>(
        what: &str,
        inputs: [Tensor<D>; N],
        fused: impl Fn([Tensor<D>; N]) -> Tensor<D>,
        decomposed: impl Fn([Tensor<D>; N]) -> Tensor<D>,
    ) {
        let (got, got_gradients) = with_gradients(inputs.clone(), &fused);
        let (want, want_gradients) = with_gradients(inputs.clone(), decomposed);
        close(what, got.clone(), want);
        for (index, (got, want)) in got_gradients.into_iter().zip(want_gradients).enumerate() {
            close(&format!("{what}, gradient {index}"), got, want);
        }
        let plain = fused(inputs.map(|input| input.inner()));
        assert_eq!(plain.into_data(), got.into_data(), "{what} without autodiff");
    }

    #[test]
    fn gelu_equals_its_composition() {
        let device = Device::flex().autodiff();
        let x = wave([3, 41, 70], 0.73, &device) * 2.0;
        agree("gelu", [x], |[x]| gelu(x), |[x]| decomposed::gelu(x));
    }

    #[test]
    fn layer_norm_equals_its_composition() {
        let device = Device::flex().autodiff();
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
                |[x, r, w, b]| decomposed::layer_norm(x, Some(r), flat(w), flat(b), 1e-12),
            );
            let [x, _, w, b] = all;
            agree(
                "layer norm",
                [x, w, b],
                |[x, w, b]| layer_norm(x, None, flat(w), flat(b), 1e-5),
                |[x, w, b]| decomposed::layer_norm(x, None, flat(w), flat(b), 1e-5),
            );
        }
    }

    #[test]
    fn dropout_equals_its_composition() {
        let device = Device::flex().autodiff();
        let mask = Mask { key: 0xDEAD_BEEF, threshold: 1 << 22, factor: 4.0 / 3.0 };
        let x = wave([3, 130, 70], 0.73, &device);
        agree("dropout", [x], |[x]| dropout(x, mask), |[x]| decomposed::dropout(x, mask));
    }

    #[test]
    fn other_precisions_take_the_composition() {
        let x = wave([2, 8], 0.73, &Device::flex()).cast(burn::tensor::FloatDType::F64);
        assert!(!is_fused(&x));
        assert_eq!(gelu(x.clone()).dtype(), DType::F64);
    }
}
