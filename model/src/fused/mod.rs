//! Passes that burn composes of many element-wise operations, each as one operation with its own backward pass on the
//! CPU: GELU, layer normalisation (of a sum), softmax of scaled and masked scores.
//!
//! Every function here has its composition of burn's own operations beside it, computes that on other devices and in
//! other precisions, and is tested against it. A result depends on the values alone: sums run over fixed chunks and
//! lanes, whatever the number of threads and the width of the processor's vectors.

mod autodiff;
mod decomposed;
mod flex;
mod kernels;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchDevice, backend_extension};
use burn::tensor::{DType, Tensor};

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

    /// `softmax(scale · scores)` over the last dimension.
    fn fused_softmax(scores: FloatTensor<Self>, scale: f32) -> FloatTensor<Self>;

    /// `softmax(scale · scores + mask)` over the last dimension; no gradient flows into the mask.
    fn fused_masked_softmax(
        scores: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;
}

/// Whether the fused operations take this tensor.
fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && matches!(x.device().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// The exact GELU, `x · Φ(x)`, of every element (Hendrycks & Gimpel, arXiv 1606.08415).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_fused(&x) {
        true => Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch())),
        false => decomposed::gelu(x),
    }
}

/// Layer normalisation of `x`, or of `x + residual`, over the last dimension (Ba et al., arXiv 1607.06450).
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

/// `softmax(scale · scores + mask)` over the last dimension; the mask has no gradient.
///
/// # Shapes
/// - scores and output `[batch, heads, q, k]`; mask `[batch or 1, heads or 1, q or 1, k]`
pub fn masked_softmax(scores: Tensor<4>, mask: Option<Tensor<4>>, scale: f64) -> Tensor<4> {
    if !is_fused(&scores) {
        return decomposed::masked_softmax(scores, mask, scale);
    }
    let (scores, scale) = (scores.into_dispatch(), scale as f32);
    Tensor::from_dispatch(match mask {
        Some(mask) => Dispatch::fused_masked_softmax(scores, mask.into_dispatch(), scale),
        None => Dispatch::fused_softmax(scores, scale),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Int, TensorData};

    /// Values between about -4 and 4.
    fn wave<const D: usize>(shape: [usize; D], speed: f32, device: &Device) -> Tensor<D> {
        let count = shape.iter().product::<usize>() as i64;
        let steps = Tensor::<1, Int>::arange(0..count, &device.clone().inner()).float();
        let values = ((steps.clone() * speed).sin() * 3.0 + (steps * 0.0137).cos()).into_data();
        Tensor::from_data(TensorData::new(values.try_to_vec::<f32>().unwrap(), shape), device)
    }

    fn close<const D: usize>(what: &str, got: Tensor<D>, want: Tensor<D>) {
        let largest = want.clone().abs().max().into_scalar::<f32>().max(1.0);
        let difference = (got - want).abs().max().into_scalar::<f32>();
        assert!(difference <= 1e-5 * largest, "{what}: {difference} of {largest}");
    }

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
    fn masked_softmax_equals_its_composition() {
        let device = Device::flex().autodiff();
        let scores = wave([2, 3, 5, 33], 0.73, &device);
        let blocked =
            |shape| (wave::<4>(shape, 1.7, &device).inner().greater_scalar(1.0).float()) * -10_000.0;
        let masks =
            [None, Some(blocked([2, 1, 1, 33])), Some(blocked([1, 1, 5, 33])), Some(blocked([2, 3, 5, 33]))];
        for mask in masks {
            let on_tape = |mask: &Option<Tensor<4>>| mask.clone().map(Tensor::from_inner);
            agree(
                "softmax",
                [scores.clone()],
                |[scores]| {
                    let mask = match scores.device().is_autodiff() {
                        true => on_tape(&mask),
                        false => mask.clone(),
                    };
                    masked_softmax(scores, mask, 0.3)
                },
                |[scores]| decomposed::masked_softmax(scores, on_tape(&mask), 0.3),
            );
        }
    }

    #[test]
    fn blocked_scores_weigh_nothing() {
        let device = Device::flex();
        let scores = Tensor::<4>::from_floats([[[[1.0, 2.0, 900.0]]]], &device);
        let mask = Tensor::<4>::from_floats([[[[0.0, 0.0, -10_000.0]]]], &device);
        let weights = masked_softmax(scores, Some(mask), 1.0).into_data();
        assert_eq!(weights.as_slice::<f32>().unwrap()[2], 0.0);
    }

    #[test]
    fn other_precisions_take_the_composition() {
        let x = wave([2, 8], 0.73, &Device::flex()).cast(burn::tensor::FloatDType::F64);
        assert!(!is_fused(&x));
        assert_eq!(gelu(x.clone()).dtype(), DType::F64);
    }
}
