//! Attention as one operation, with its own backward pass.
//!
//! Composed of burn's operations, scores, probabilities and dropped probabilities are a tensor each, and so
//! are their gradients. On the CPU the scores become probabilities in place, the backward pass keeps these
//! alone, draws the dropout mask again, and turns their gradient into that of the scores in place. On
//! CubeCL's devices it keeps query, key and value alone (`cube`). In other precisions it is the composition,
//! which is also what the tests compare with.
//!
//! A few queries without a tape, as in generation, read keys and values where the cache has them (`few`).
//!
//! With [`Compute::Bf16`] the factors of all products are rounded to bf16, in the backward pass the gradients
//! of output and scores too; on the CPU their sums stay float32, elsewhere they are rounded once more.
//! Scores, mask, softmax and its derivative are float32. So it is for what is kept in bf16, whose output and
//! gradients are bf16 too.

mod autodiff;
mod composed;
#[cfg(feature = "cube")]
mod cube;
mod few;
mod flex;
mod operation;
#[cfg(feature = "cube")]
mod probabilities;
mod softmax;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::dropout::Mask;
use super::place::is_factor;
use crate::device::compute::Compute;
use operation::{AttentionOps, Settings};

/// `dropout(softmax(scale · query·keyᵀ + mask)) · value`; the mask has no gradient (Vaswani et al., arXiv
/// 1706.03762).
///
/// # Shapes
/// - query and output `[batch, heads, q, width]`; key and value `[batch, heads, k, width]`; mask
///   `[batch or 1, heads or 1, q or 1, k]`
pub(crate) fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<4>>,
    scale: f64,
    dropout: Option<Mask>,
    compute: Compute,
) -> Tensor<4> {
    if !takes(&query, &key, &value) {
        return composed::attention(query, key, value, mask, scale, dropout, compute);
    }
    let settings = Settings { scale: scale as f32, dropout, compute };
    let (query, key, value) = (query.into_dispatch(), key.into_dispatch(), value.into_dispatch());
    Tensor::from_dispatch(match mask {
        Some(mask) => Dispatch::fused_masked_attention(query, key, value, mask.into_dispatch(), settings),
        None => Dispatch::fused_attention(query, key, value, settings),
    })
}

/// Whether the tensors are such as the operation takes; burn broadcasts batches, or says what does not fit.
fn takes(query: &Tensor<4>, key: &Tensor<4>, value: &Tensor<4>) -> bool {
    let ([batch, heads, rows, width], [_, _, positions, _]) = (query.dims(), key.dims());
    let fits = key.dims() == [batch, heads, positions, width]
        && value.dims()[..3] == [batch, heads, positions]
        && batch * heads * rows * positions > 0;
    fits && is_factor(query) && is_factor(key) && is_factor(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::agreement::{close, device, wave};
    use burn::tensor::{DType, Device, FloatDType, TensorData};

    type Attention =
        fn(Tensor<4>, Tensor<4>, Tensor<4>, Option<Tensor<4>>, f64, Option<Mask>, Compute) -> Tensor<4>;

    /// Output and gradients. Keys, values and queries are heads cut out of rows, as the models have them.
    fn run(
        of: Attention,
        mask: Option<Tensor<4>>,
        dropout: Option<Mask>,
        compute: Compute,
    ) -> [Tensor<4>; 4] {
        let device = device().autodiff();
        let rows = |length, speed| wave([2, length, 3, 8], speed, &device).require_grad();
        let inputs = [rows(5, 0.73), rows(33, 0.21), rows(33, 0.31)];
        let [query, key, value] = inputs.clone().map(|rows| rows.swap_dims(1, 2));
        let output = of(query, key, value, mask.map(Tensor::from_inner), 0.3, dropout, compute);
        let weights = wave(output.dims(), 0.37, &device);
        let mut gradients = (output.clone() * weights).sum().backward();
        let [query, key, value] = inputs.map(|input| input.grad_remove(&mut gradients).unwrap());
        [output.inner(), query, key, value]
    }

    #[test]
    fn equals_its_composition_in_value_and_gradients() {
        let device = device();
        let blocked = |shape| wave::<4>(shape, 1.7, &device).greater_scalar(1.0).float() * -10_000.0;
        let masks =
            [None, Some(blocked([2, 1, 1, 33])), Some(blocked([1, 1, 5, 33])), Some(blocked([2, 3, 5, 33]))];
        let dropped = Mask { key: 7, threshold: 1 << 22, factor: 4.0 / 3.0 };
        for mask in masks {
            for dropout in [None, Some(dropped)] {
                let got = run(attention, mask.clone(), dropout, Compute::F32);
                let want = run(composed::attention, mask.clone(), dropout, Compute::F32);
                let parts = ["output", "gradient of queries", "gradient of keys", "gradient of values"];
                for ((part, got), want) in parts.into_iter().zip(got).zip(want) {
                    close(&format!("{part}, mask {mask:?}, dropout {dropout:?}"), got, want);
                }
            }
        }
    }

    #[test]
    fn in_bf16_it_is_near_its_composition_and_that_near_float32() {
        let dropped = Mask { key: 7, threshold: 1 << 22, factor: 4.0 / 3.0 };
        let of = |attention: Attention, compute| run(attention, None, Some(dropped), compute);
        let (got, composed) = (of(attention, Compute::Bf16), of(composed::attention, Compute::Bf16));
        let exact = of(attention, Compute::F32);
        let parts = ["output", "gradient of queries", "gradient of keys", "gradient of values"];
        for (((part, got), composed), exact) in parts.into_iter().zip(got).zip(composed).zip(exact) {
            assert_eq!((got.dtype(), composed.dtype()), (DType::F32, DType::F32), "{part}");
            let largest = exact.clone().abs().max().into_scalar::<f32>();
            let apart = |other: Tensor<4>| (got.clone() - other).abs().max().into_scalar::<f32>() / largest;
            let (composed, exact) = (apart(composed), apart(exact));
            assert!(composed < 2e-2, "{part}: {composed} from the composition");
            assert!(exact > 0.0 && exact < 2e-2, "{part}: {exact} from float32");
        }
    }

    #[test]
    fn what_is_kept_in_bf16_is_near_its_composition() {
        let device = Device::flex();
        let kept = |length, speed| wave::<4>([2, 3, length, 8], speed, &device).cast(FloatDType::BF16);
        let [query, key, value] = [kept(5, 0.73), kept(33, 0.21), kept(33, 0.31)];
        let of =
            |with: Attention| with(query.clone(), key.clone(), value.clone(), None, 0.3, None, Compute::F32);
        let (got, want) = (of(attention), of(composed::attention));
        assert_eq!((got.dtype(), want.dtype()), (DType::BF16, DType::BF16));
        let wide = |x: Tensor<4>| x.cast(FloatDType::F32);
        let largest = wide(want.clone()).abs().max().into_scalar::<f32>();
        let apart = (wide(got) - wide(want)).abs().max().into_scalar::<f32>();
        // Composed, the scores, which are large here, are rounded: 2.8 % when this was written.
        assert!(apart < 5e-2 * largest, "{apart} of {largest}");
    }

    #[test]
    fn a_tape_changes_nothing_and_frozen_parts_have_no_gradient() {
        let plain = Device::flex();
        let [query, key, value] = [0.73, 0.21, 0.31].map(|speed| wave::<4>([2, 3, 5, 8], speed, &plain));
        let want = attention(query.clone(), key.clone(), value.clone(), None, 0.3, None, Compute::F32);
        let query = Tensor::from_inner(query).require_grad();
        let [key, value] = [key, value].map(Tensor::from_inner);
        let output = attention(query.clone(), key.clone(), value, None, 0.3, None, Compute::F32);
        assert_eq!(output.clone().inner().into_data(), want.into_data());
        let mut gradients = output.sum().backward();
        assert!(query.grad_remove(&mut gradients).is_some() && key.grad(&gradients).is_none());
    }

    #[test]
    fn few_queries_without_a_tape_equal_the_composition() {
        let device = Device::flex();
        // Heads cut out of rows, as what is read once; and positions cut out of a cache's room.
        let of_rows = |length, speed| wave::<4>([2, length, 3, 20], speed, &device).swap_dims(1, 2);
        let of_cache = |length, speed| wave::<4>([2, 3, length + 7, 20], speed, &device).narrow(2, 2, length);
        let blocked = |shape| wave::<4>(shape, 1.7, &device).greater_scalar(1.0).float() * -10_000.0;
        for rows in [1, 3, few::FEW] {
            for [key, value] in
                [[of_rows(33, 0.21), of_rows(33, 0.31)], [of_cache(33, 0.21), of_cache(33, 0.31)]]
            {
                let masks = [None, Some(blocked([2, 1, 1, 33])), Some(blocked([2, 3, rows, 33]))];
                for mask in masks {
                    let query = of_rows(rows, 0.73);
                    let of = |of: Attention| {
                        of(query.clone(), key.clone(), value.clone(), mask.clone(), 0.3, None, Compute::F32)
                    };
                    let (got, want) = (of(attention), of(composed::attention));
                    close(&format!("{rows} queries, mask {mask:?}"), got.clone(), want);
                    // Each is what it is alone.
                    let mask = mask.clone().map(|mask| mask.expand([2, 3, rows, 33]).narrow(2, rows - 1, 1));
                    let last = query.narrow(2, rows - 1, 1);
                    let alone = attention(last, key.clone(), value.clone(), mask, 0.3, None, Compute::F32);
                    assert_eq!(alone.into_data(), got.narrow(2, rows - 1, 1).into_data());
                }
            }
        }
    }

    #[test]
    fn blocked_positions_weigh_nothing() {
        let device = Device::flex();
        let ones = Tensor::<4>::ones([1, 1, 1, 1], &device);
        let value = Tensor::<4>::from_floats([[[[1.0], [3.0], [900.0]]]], &device);
        let mask = Tensor::<4>::from_floats([[[[0.0, 0.0, -10_000.0]]]], &device);
        let key = Tensor::ones([1, 1, 3, 1], &device);
        let output = attention(ones, key, value, Some(mask), 1.0, None, Compute::F32);
        assert_eq!(output.into_data(), TensorData::from([[[[2.0_f32]]]]));
    }

    #[test]
    fn other_precisions_and_shared_batches_take_the_composition() {
        let device = Device::flex();
        let query = wave::<4>([2, 1, 3, 4], 0.73, &device);
        let shared = wave::<4>([1, 1, 5, 4], 0.21, &device);
        assert!(!takes(&query, &shared, &shared));
        let output = attention(query.clone(), shared.clone(), shared, None, 1.0, None, Compute::F32);
        assert_eq!(output.dims(), [2, 1, 3, 4]);
        let wide = query.cast(FloatDType::F64);
        for compute in [Compute::F32, Compute::Bf16] {
            let output = attention(wide.clone(), wide.clone(), wide.clone(), None, 1.0, None, compute);
            assert_eq!(output.dtype(), DType::F64);
        }
    }
}
