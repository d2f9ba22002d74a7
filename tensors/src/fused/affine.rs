//! The affine map of rows as one operation, with its own backward pass.
//!
//! burn takes the weight as `[in, out]`, so a weight in PyTorch's layout goes in and its gradient comes out
//! as a transposed view, and every use of the gradient pays for that: the sum over passes, the copy into the
//! flat buffer. Here the gradient is computed in the weight's own layout, `dYᵀ·X`; the bias is added in
//! place, by all threads. A few rows without a tape, as in generation, are a product of their own
//! (`fused/kernels/few_rows`). On CubeCL's devices the products are burn's, of the same factors (`cube`). In
//! other precisions the map is burn's own, which is also what the tests compare with.
//!
//! With [`Compute::Bf16`] both factors of the three products are rounded to bf16: `X` and `W`, `dY` and `W`,
//! `dY` and `X`. Here their sums stay float32, and so do the gradients that leave the map; the rounding
//! itself has the derivative 1. On other devices, and composed of burn's operations, a product's result is
//! rounded to bf16 as well, once. The bias is added, and its gradient summed, in float32.

mod autodiff;
#[cfg(feature = "cube")]
mod cube;
mod flex;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor, module};

use super::gelu::gelu;
use super::kernels::few_rows::FEW;
use super::place::{is_factor, is_fused_on_cpu};
use crate::device::cast::in_numbers;
use crate::device::compute::Compute;

/// The numbers of a map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    /// Of the products' factors, which may be kept in bf16 as well.
    pub(crate) compute: Compute,
    /// Of the output, float32 or bf16.
    pub(crate) output: DType,
}

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cube"))]
pub(crate) trait AffineOps: Backend {
    /// `x·Wᵀ + b` over the last dimension of `x`, with the weight as `[out, in]`.
    fn affine_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        numbers: Numbers,
    ) -> FloatTensor<Self>;

    /// `gelu(x)·Wᵀ + b`: what the backward pass keeps is `x` alone.
    fn affine_of_gelu(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        numbers: Numbers,
    ) -> FloatTensor<Self>;

    /// `x·Wᵀ + b` without a bias.
    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, numbers: Numbers) -> FloatTensor<Self>;
}

/// `x·Wᵀ + b`.
///
/// # Shapes
/// - x `[..., in]`, weight `[out, in]`, bias `[out]`, output `[..., out]`
pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    numbers: Numbers,
) -> Tensor<D> {
    if !has_rows(&x, &weight, bias.as_ref()) {
        return composed(x, weight, bias, numbers);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::affine_rows(x, weight, bias.into_dispatch(), numbers),
        None => Dispatch::linear_rows(x, weight, numbers),
    })
}

/// `gelu(x)·Wᵀ + b`: on the CPU one operation, which computes the GELU again in its backward pass instead of
/// keeping it.
///
/// # Shapes
/// - those of [`linear`]
pub(crate) fn linear_of_gelu<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    numbers: Numbers,
) -> Tensor<D> {
    match bias {
        Some(bias)
            if is_fused_on_cpu(&x) && !has_few_rows(&x, &weight) && has_rows(&x, &weight, Some(&bias)) =>
        {
            let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
            Tensor::from_dispatch(Dispatch::affine_of_gelu(x, weight, bias, numbers))
        }
        bias => linear(gelu(x), weight, bias, numbers),
    }
}

/// The same of burn's operations.
fn composed<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    Numbers { compute, output }: Numbers,
) -> Tensor<D> {
    // Other precisions than these two are computed in as they are.
    if compute == Compute::F32 || !matches!(x.dtype(), DType::F32 | DType::BF16) {
        return module::linear(x, weight.transpose(), bias);
    }
    let (x, weight) = (in_numbers(x, compute.dtype()), in_numbers(weight, compute.dtype()));
    let product = in_numbers(module::linear(x, weight.transpose(), None), output);
    match bias {
        Some(bias) => product + in_numbers(bias, output).unsqueeze(),
        None => product,
    }
}

/// Whether the rows are few, float32 and on no tape, as in generation: the operation then reads the weight
/// once and packs nothing.
pub(crate) fn has_few_rows<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>) -> bool {
    let on_tape = x.device().is_autodiff() || weight.device().is_autodiff();
    !on_tape
        && is_fused_on_cpu(x)
        && is_fused_on_cpu(weight)
        && x.shape().num_elements() <= FEW * x.dims()[D - 1]
}

/// Whether the tensors are such as the operations take; with shapes that do not fit, burn says so.
fn has_rows<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> bool {
    let [output, input] = weight.dims();
    let fits = x.dims()[D - 1] == input && x.shape().num_elements() * output > 0;
    let bias_fits = bias.is_none_or(|bias| bias.dims() == [output] && is_factor(bias));
    fits && bias_fits && is_factor(x) && is_factor(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::agreement::{close, device, wave};
    use burn::tensor::{Device, FloatDType};

    type Map = fn(Tensor<3>, Tensor<2>, Tensor<1>, Compute) -> Tensor<3>;

    fn numbers(compute: Compute) -> Numbers {
        Numbers { compute, output: DType::F32 }
    }

    fn affine<const D: usize>(
        x: Tensor<D>,
        weight: Tensor<2>,
        bias: Tensor<1>,
        compute: Compute,
    ) -> Tensor<D> {
        linear(x, weight, Some(bias), numbers(compute))
    }

    fn of_burn(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, compute: Compute) -> Tensor<3> {
        composed(x, weight, Some(bias), numbers(compute))
    }

    /// The output of two passes over one weight, and all gradients.
    fn two_passes(map: Map, compute: Compute) -> (Tensor<3>, Tensor<3>, Tensor<2>, Tensor<1>) {
        let device = device().autodiff();
        let x = wave([3, 40, 37], 0.73, &device).require_grad();
        let (weight, bias) = (wave([53, 37], 0.31, &device), wave([53], 0.5, &device));
        let (weight, bias) = (weight.require_grad(), bias.require_grad());
        let part = map(x.clone().narrow(1, 7, 21), weight.clone(), bias.clone(), compute);
        let output = map(x.clone(), weight.clone(), bias.clone(), compute);
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
        let (got, want) = (two_passes(affine, Compute::F32), two_passes(of_burn, Compute::F32));
        close("output", got.0, want.0);
        close("gradient of x", got.1, want.1);
        close("gradient of the weight", got.2, want.2);
        close("gradient of the bias", got.3, want.3);
    }

    #[test]
    fn of_a_gelu_it_has_the_bits_of_both_in_value_and_gradients() {
        fn apart(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, compute: Compute) -> Tensor<3> {
            affine(gelu(x), weight, bias, compute)
        }
        fn at_once(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, compute: Compute) -> Tensor<3> {
            linear_of_gelu(x, weight, Some(bias), numbers(compute))
        }
        for compute in [Compute::F32, Compute::Bf16] {
            let (got, want) = (two_passes(at_once, compute), two_passes(apart, compute));
            assert_eq!(got.0.into_data(), want.0.into_data(), "output");
            assert_eq!(got.1.into_data(), want.1.into_data(), "gradient of x");
            assert_eq!(got.2.into_data(), want.2.into_data(), "gradient of the weight");
            assert_eq!(got.3.into_data(), want.3.into_data(), "gradient of the bias");
        }
        // What is kept in bf16 has its GELU apart.
        let device = Device::flex();
        let narrow = wave::<2>([2, 4], 0.73, &device).cast(FloatDType::BF16);
        let weight = wave([3, 4], 0.31, &device).cast(FloatDType::BF16);
        let numbers = Numbers { compute: Compute::Bf16, output: DType::BF16 };
        let bias = Some(wave([3], 0.5, &device));
        let got = linear_of_gelu(narrow.clone(), weight.clone(), bias.clone(), numbers);
        assert_eq!(got.into_data(), linear(gelu(narrow), weight, bias, numbers).into_data());
    }

    #[test]
    fn products_of_bf16_factors_have_sums_and_gradients_in_float32() {
        // What is bf16 already is not rounded, so the product is float32's.
        let device = Device::flex();
        let bf16 = |x: Tensor<2>| x.cast(FloatDType::BF16).cast(FloatDType::F32);
        let [x, weight] = [wave([9, 64], 0.73, &device), wave([7, 64], 0.31, &device)].map(bf16);
        let exact = linear(x.clone(), weight.clone(), None, numbers(Compute::F32));
        assert_eq!(
            linear(x.clone(), weight.clone(), None, numbers(Compute::Bf16)).into_data(),
            exact.clone().into_data()
        );
        assert_ne!(bf16(exact.clone()).into_data(), exact.into_data(), "the sums are no bf16");

        // Between the factors' rounding and the result's nothing is rounded: dX = bf16(dY)·bf16(W), and so
        // on.
        let autodiff = device.clone().autodiff();
        let inputs = [wave([9, 64], 0.73, &device), wave([7, 64], 0.31, &device)];
        let [x, weight] = inputs.clone().map(|input| Tensor::<2>::from_inner(input).require_grad());
        let bias = Tensor::<1>::from_inner(wave([7], 0.5, &device)).require_grad();
        let towards = wave([9, 7], 0.37, &autodiff);
        let output = affine(x.clone(), weight.clone(), bias.clone(), Compute::Bf16);
        let mut gradients = (output * towards.clone()).sum().backward();
        let (from, [of_x, of_weight]) = (towards.inner(), inputs.map(bf16));
        let rounded = bf16(from.clone());
        close("x", x.grad_remove(&mut gradients).unwrap(), rounded.clone().matmul(of_weight));
        close("weight", weight.grad_remove(&mut gradients).unwrap(), rounded.transpose().matmul(of_x));
        let of_bias = bias.grad_remove(&mut gradients).unwrap();
        close("bias", of_bias, from.sum_dim(0).reshape([7]));
    }

    /// The largest difference, of the largest value.
    fn apart<const D: usize>(got: &Tensor<D>, want: &Tensor<D>) -> f32 {
        let largest = want.clone().abs().max().into_scalar::<f32>();
        (got.clone() - want.clone()).abs().max().into_scalar::<f32>() / largest
    }

    #[test]
    fn in_bf16_it_is_near_its_composition_and_that_near_float32() {
        let (got, composed) = (two_passes(affine, Compute::Bf16), two_passes(of_burn, Compute::Bf16));
        let exact = two_passes(affine, Compute::F32);
        // A product composed of burn's operations is rounded once more, by 2^-9 of itself at most.
        let bounds = |what: &str, composed: f32, exact: f32| {
            assert!(composed < 6e-3, "{what}: {composed} from the composition");
            assert!(exact > 0.0 && exact < 3e-2, "{what}: {exact} from float32");
        };
        bounds("output", apart(&got.0, &composed.0), apart(&got.0, &exact.0));
        bounds("gradient of x", apart(&got.1, &composed.1), apart(&got.1, &exact.1));
        bounds("gradient of the weight", apart(&got.2, &composed.2), apart(&got.2, &exact.2));
        close("gradient of the bias", got.3, exact.3);
        for dtype in [composed.0.dtype(), composed.1.dtype(), composed.2.dtype(), composed.3.dtype()] {
            assert_eq!(dtype, DType::F32);
        }
    }

    #[test]
    fn what_is_kept_in_bf16_is_summed_in_float32_and_rounded_once() {
        let device = Device::flex();
        let narrow = |x: Tensor<2>| x.cast(FloatDType::BF16);
        let wide = |x: Tensor<2>| x.cast(FloatDType::F32);
        let [x, weight] = [wave([9, 64], 0.73, &device), wave([7, 64], 0.31, &device)].map(narrow);
        let bias = wave([7], 0.5, &device);
        let in_bf16 = |output| {
            linear(x.clone(), weight.clone(), Some(bias.clone()), Numbers { compute: Compute::Bf16, output })
        };
        let exact = affine(wide(x.clone()), wide(weight.clone()), bias.clone(), Compute::F32);
        assert_eq!(in_bf16(DType::F32).into_data(), exact.clone().into_data());
        assert_eq!(in_bf16(DType::BF16).into_data(), narrow(exact.clone()).into_data());

        // A gradient that arrives in bf16 leaves in bf16, with the sums of float32.
        let tracked = Tensor::<2>::from_inner(x).require_grad();
        let [frozen, towards] = [weight.clone(), narrow(wave([9, 7], 0.37, &device))].map(Tensor::from_inner);
        let numbers = Numbers { compute: Compute::Bf16, output: DType::BF16 };
        let output = linear(tracked.clone(), frozen, None, numbers);
        let mut gradients = (output * towards.clone()).sum().backward();
        let want = narrow(wide(towards.inner()).matmul(wide(weight)));
        assert_eq!(tracked.grad_remove(&mut gradients).unwrap().into_data(), want.into_data());
    }

    #[test]
    fn gradients_flow_through_a_frozen_map_and_into_one_over_plain_inputs() {
        let (device, plain) = (Device::flex().autodiff(), Device::flex());
        let (weight, bias) = (wave([5, 4], 0.31, &plain), wave([5], 0.5, &plain));
        let x = wave([2, 3, 4], 0.73, &device).require_grad();
        let (frozen, frozen_bias) = (Tensor::from_inner(weight.clone()), Tensor::from_inner(bias.clone()));
        let mut gradients = affine(x.clone(), frozen, frozen_bias, Compute::F32).sum().backward();
        let want = weight.clone().sum_dim(0).reshape([1, 1, 4]).expand([2, 3, 4]);
        close("gradient of x", x.grad_remove(&mut gradients).unwrap(), want);

        let weight = Tensor::<2>::from_inner(weight).require_grad();
        let x = wave([2, 3, 4], 0.73, &plain);
        let output =
            affine(Tensor::from_inner(x.clone()), weight.clone(), Tensor::from_inner(bias), Compute::F32);
        let gradient = weight.grad_remove(&mut output.sum().backward()).unwrap();
        close("gradient of the weight", gradient, x.reshape([6, 4]).sum_dim(0).expand([5, 4]));
    }

    #[test]
    fn few_rows_without_a_tape_are_each_what_they_are_alone() {
        let device = Device::flex();
        let (x, weight) = (wave([FEW, 1, 37], 0.73, &device), wave([53, 37], 0.31, &device));
        let bias = wave([53], 0.5, &device);
        assert!(has_few_rows(&x, &weight));
        assert!(!has_few_rows(&wave::<3>([FEW, 2, 37], 0.73, &device), &weight), "many rows");
        assert!(!has_few_rows(&Tensor::<3>::from_inner(x.clone()), &weight), "a tape");
        let with_bias = affine(x.clone(), weight.clone(), bias.clone(), Compute::F32);
        let without = linear(x.clone(), weight.clone(), None, numbers(Compute::F32));
        close("few rows", with_bias.clone(), of_burn(x.clone(), weight.clone(), bias.clone(), Compute::F32));
        assert_eq!((without + bias.clone().unsqueeze()).into_data(), with_bias.clone().into_data());
        // Not in the order of their memory, either.
        let turned = weight.clone().transpose().mul_scalar(1.0).transpose();
        for row in [0, 6, FEW - 1] {
            let alone = affine(x.clone().narrow(0, row, 1), turned.clone(), bias.clone(), Compute::F32);
            assert_eq!(alone.into_data(), with_bias.clone().narrow(0, row, 1).into_data(), "row {row}");
        }
    }

    #[test]
    fn other_precisions_take_the_composition() {
        let device = Device::flex();
        let wide = |x: Tensor<2>| x.cast(FloatDType::F64);
        let (x, weight) = (wide(wave([2, 4], 0.73, &device)), wide(wave([3, 4], 0.31, &device)));
        let bias = wave([3], 0.5, &device).cast(FloatDType::F64);
        assert!(!has_rows(&x, &weight, Some(&bias)));
        for compute in [Compute::F32, Compute::Bf16] {
            assert_eq!(affine(x.clone(), weight.clone(), bias.clone(), compute).dtype(), DType::F64);
        }
    }
}
