//! The affine map of rows as one operation on the CPU, with its own backward pass.
//!
//! burn takes the weight as `[in, out]`, so a weight in PyTorch's layout goes in and its gradient comes out as a
//! transposed view, and every use of the gradient pays for that: the sum over passes, the copy into the flat buffer. Here
//! the gradient is computed in the weight's own layout, `dYᵀ·X`; the bias is added in place, by all threads. On other
//! devices and in other precisions the map is burn's own, which is also what the tests compare with.

mod autodiff;
mod flex;
mod rows;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchDevice, backend_extension};
use burn::tensor::{DType, Tensor, module};

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait AffineOps: Backend {
    /// `x·Wᵀ + b` over the last dimension of `x`, with the weight as `[out, in]`.
    fn affine_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// `x·Wᵀ + b`.
///
/// # Shapes
/// - x `[..., in]`, weight `[out, in]`, bias `[out]`, output `[..., out]`
pub(crate) fn affine<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    if !has_affine_rows(&x, &weight, &bias) {
        return composed(x, weight, bias);
    }
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::affine_rows(x, weight, bias))
}

/// The same of burn's operations.
fn composed<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    module::linear(x, weight.transpose(), Some(bias))
}

/// Whether the tensors are such as the operation takes; with shapes that do not fit, burn says so.
fn has_affine_rows<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>, bias: &Tensor<1>) -> bool {
    let [output, input] = weight.dims();
    let fits = x.dims()[D - 1] == input && bias.dims() == [output] && x.shape().num_elements() * output > 0;
    let floats = [x.dtype(), weight.dtype(), bias.dtype()].iter().all(|dtype| *dtype == DType::F32);
    fits && floats && matches!(x.device().inner().as_dispatch(), DispatchDevice::Flex(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, FloatDType, Int, TensorData};

    fn wave<const D: usize>(shape: [usize; D], speed: f32, device: &Device) -> Tensor<D> {
        let count = shape.iter().product::<usize>() as i64;
        let steps = Tensor::<1, Int>::arange(0..count, &Device::flex()).float();
        let values = (steps * speed).sin().into_data().try_to_vec::<f32>().unwrap();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn close<const D: usize>(what: &str, got: Tensor<D>, want: Tensor<D>) {
        let largest = want.clone().abs().max().into_scalar::<f32>().max(1.0);
        let difference = (got - want).abs().max().into_scalar::<f32>();
        assert!(difference <= 1e-5 * largest, "{what}: {difference} of {largest}");
    }

    type Map = fn(Tensor<3>, Tensor<2>, Tensor<1>) -> Tensor<3>;

    /// The output of two passes over one weight, and all gradients.
    fn two_passes(map: Map) -> (Tensor<3>, Tensor<3>, Tensor<2>, Tensor<1>) {
        let device = Device::flex().autodiff();
        let x = wave([3, 40, 37], 0.73, &device).require_grad();
        let (weight, bias) = (wave([53, 37], 0.31, &device), wave([53], 0.5, &device));
        let (weight, bias) = (weight.require_grad(), bias.require_grad());
        let part = map(x.clone().narrow(1, 7, 21), weight.clone(), bias.clone());
        let output = map(x.clone(), weight.clone(), bias.clone());
        let sums = (output.clone() * wave([3, 40, 53], 0.37, &device)).sum()
            + (part * wave([3, 21, 53], 0.11, &device)).sum();
        let mut gradients = sums.backward();
        (
            output.inner(),
            x.grad_remove(&mut gradients).unwrap(),
            weight.grad_remove(&mut gradients).unwrap(),
            bias.grad_remove(&mut gradients).unwrap(),
        )
    }

    #[test]
    fn equals_its_composition_in_value_and_gradients() {
        let (got, want) = (two_passes(affine), two_passes(composed));
        close("output", got.0, want.0);
        close("gradient of x", got.1, want.1);
        close("gradient of the weight", got.2, want.2);
        close("gradient of the bias", got.3, want.3);
    }

    #[test]
    fn gradients_flow_through_a_frozen_map_and_into_one_over_plain_inputs() {
        let (device, plain) = (Device::flex().autodiff(), Device::flex());
        let (weight, bias) = (wave([5, 4], 0.31, &plain), wave([5], 0.5, &plain));
        let x = wave([2, 3, 4], 0.73, &device).require_grad();
        let (frozen, frozen_bias) = (Tensor::from_inner(weight.clone()), Tensor::from_inner(bias.clone()));
        let mut gradients = affine(x.clone(), frozen, frozen_bias).sum().backward();
        let want = weight.clone().sum_dim(0).reshape([1, 1, 4]).expand([2, 3, 4]);
        close("gradient of x", x.grad_remove(&mut gradients).unwrap(), want);

        let weight = Tensor::<2>::from_inner(weight).require_grad();
        let x = wave([2, 3, 4], 0.73, &plain);
        let output = affine(Tensor::from_inner(x.clone()), weight.clone(), Tensor::from_inner(bias));
        let gradient = weight.grad_remove(&mut output.sum().backward()).unwrap();
        close("gradient of the weight", gradient, x.reshape([6, 4]).sum_dim(0).expand([5, 4]));
    }

    #[test]
    fn other_precisions_take_the_composition() {
        let device = Device::flex();
        let wide = |x: Tensor<2>| x.cast(FloatDType::F64);
        let (x, weight) = (wide(wave([2, 4], 0.73, &device)), wide(wave([3, 4], 0.31, &device)));
        let bias = wave([3], 0.5, &device).cast(FloatDType::F64);
        assert!(!has_affine_rows(&x, &weight, &bias));
        assert_eq!(affine(x, weight, bias).dtype(), DType::F64);
    }
}
