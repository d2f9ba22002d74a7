//! Inputs for the tests of fused operations, and how closely they must agree with their compositions.

use burn::tensor::{Device, Int, Tensor, TensorData};

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
