//! Inputs for the tests of fused operations, and how closely they must agree with their compositions.

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

use crate::device::DeviceName;
use crate::device::cast::in_numbers;

/// The device that operations are compared with their compositions on, without autodiff: what
/// `BLIP2_TEST_DEVICE` names, or the CPU.
pub(crate) fn device() -> Device {
    let name = std::env::var("BLIP2_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    let device = name.parse::<DeviceName>().and_then(DeviceName::open);
    device.unwrap_or_else(|error| panic!("BLIP2_TEST_DEVICE: {error}"))
}

/// Values between about -4 and 4.
pub(super) fn wave<const D: usize>(shape: [usize; D], speed: f32, device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>() as i64;
    let steps = Tensor::<1, Int>::arange(0..count, &device.clone().inner()).float();
    let values = ((steps.clone() * speed).sin() * 3.0 + (steps * 0.0137).cos()).into_data();
    Tensor::from_data(TensorData::new(values.try_to_vec::<f32>().unwrap(), shape), device)
}

/// # Panics
/// A difference above 1e-5 of the largest value, which counts as 1 at least.
pub(super) fn close<const D: usize>(what: &str, got: Tensor<D>, want: Tensor<D>) {
    let largest = want.clone().abs().max().into_scalar::<f32>().max(1.0);
    let difference = (got - want).abs().max().into_scalar::<f32>();
    assert!(difference <= 1e-5 * largest, "{what}: {difference} of {largest}");
}

/// Output and the gradients of `inputs` of a sum of the output, weighted so that no two elements weigh the
/// same.
fn with_gradients<const N: usize, const D: usize>(
    inputs: [Tensor<D>; N],
    compute: impl Fn([Tensor<D>; N]) -> Tensor<D>,
) -> (Tensor<D>, [Tensor<D>; N]) {
    let inputs = inputs.map(|input| input.require_grad());
    let output = compute(inputs.clone());
    let weights = in_numbers(wave(output.dims(), 0.37, &output.device()), output.dtype());
    let mut gradients = (output.clone() * weights).sum().backward();
    (output.inner(), inputs.map(|input| input.grad_remove(&mut gradients).unwrap()))
}

/// # Panics
/// An output of bf16 that is not the one of float32, rounded; a gradient that is more than a few roundings
/// from float32's. Nothing is compared on devices that do not compute in bf16.
pub(super) fn is_rounded<const D: usize>(
    what: &str,
    x: Tensor<D>,
    operation: impl Fn(Tensor<D>) -> Tensor<D>,
) {
    // Mesa's software driver, which says that it does not compute in it, crashes where a kernel reads bf16.
    if !x.device().supports_dtype(FloatDType::BF16) {
        return;
    }
    let narrow = x.cast(FloatDType::BF16);
    let wide = narrow.clone().cast(FloatDType::F32);
    let (got, [of_narrow]) = with_gradients([narrow], |[x]| operation(x));
    let (want, [of_wide]) = with_gradients([wide], |[x]| operation(x));
    assert_eq!(got.into_data(), want.cast(FloatDType::BF16).into_data(), "{what}");
    let largest = of_wide.clone().abs().max().into_scalar::<f32>();
    let apart = (of_narrow.cast(FloatDType::F32) - of_wide).abs().max().into_scalar::<f32>();
    assert!(apart < 0.01 * largest, "{what}, gradient: {apart} of {largest}");
}

/// # Panics
/// Output or gradients apart from those of the composition, or an output that a tape changes.
pub(super) fn agree<const N: usize, const D: usize>(
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
