//! Casts: the one place where values go from one kind of numbers to another.
//!
//! The residual stream of a frozen model that is kept in bf16 is bf16 too. What needs more digits on the way
//! (norms, softmax, activations, rotations) takes it to float32 and rounds its result back, once.

use burn::tensor::{DType, Tensor};

/// The same values as float32; no operation where they are.
pub fn in_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_numbers(x, DType::F32)
}

/// The values in these numbers; no operation where they are.
pub fn in_numbers<const D: usize>(x: Tensor<D>, numbers: DType) -> Tensor<D> {
    if x.dtype() == numbers {
        return x;
    }
    casts::count();
    x.cast(numbers)
}

/// A function of float32, of values in any numbers, which the result has too.
pub fn through_f32<const D: usize>(x: Tensor<D>, function: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let numbers = x.dtype();
    match numbers {
        DType::BF16 => in_numbers(function(in_f32(x)), numbers),
        _ => function(x),
    }
}

/// How often this thread has cast values: what tests of a model's precision count.
pub mod casts {
    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        COUNT.set(COUNT.get() + 1);
    }

    /// The casts of this thread in `of`.
    pub fn during<T>(of: impl FnOnce() -> T) -> usize {
        let before = COUNT.get();
        of();
        COUNT.get() - before
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn functions_of_float32_round_once() {
        let x = Tensor::<1>::from_floats([0.1, 1.0, 3.3], &Device::flex());
        let narrow = in_numbers(x.clone(), DType::BF16);
        let want = in_numbers(in_f32(narrow.clone()) * 0.7 + 0.3, DType::BF16);
        assert_eq!(through_f32(narrow, |x| x * 0.7 + 0.3).into_data(), want.into_data());
        assert_eq!(casts::during(|| through_f32(x, |x| x + 1.0)), 0, "float32 is not cast");
    }
}
