//! Attention on the CPU backend's tensors.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;

use super::operation::{AttentionOps, Settings};
use super::{few, softmax};
use crate::device::compute::Compute;
use crate::fused::dropout::{DropoutOps, Mask};
use crate::fused::flex::{contiguous, factor, result, values};
use crate::fused::product::{product, product_of_heads};

/// `softmax(scale · query·keyᵀ + mask)`.
pub(super) fn probabilities(
    query: &FlexTensor,
    key: &FlexTensor,
    mask: Option<FlexTensor>,
    scale: f32,
) -> FlexTensor {
    let mut scores = product(query, &key.transpose(2, 3));
    let shape = scores.shape().to_vec();
    let mask = mask.map(contiguous);
    let rows = mask.as_ref().map(|mask| (values(mask), mask_rows(&shape, &mask.shape().to_vec())));
    // The last of the four dimensions.
    softmax::in_place(scores.storage_mut::<f32>(), shape[3], rows, scale);
    scores
}

/// For each row of the scores, the row of the mask that is added to it.
fn mask_rows(scores: &[usize], mask: &[usize]) -> softmax::MaskRows {
    let stride = |dimension: usize, after: usize| if mask[dimension] == 1 { 0 } else { after };
    softmax::MaskRows {
        heads: scores[1],
        queries: scores[2],
        strides: [stride(0, mask[1] * mask[2]), stride(1, mask[2]), stride(2, 1)],
    }
}

/// Query, key and value as the products take them.
pub(super) fn factors(inputs: [FlexTensor; 3], settings: Settings) -> [FlexTensor; 3] {
    inputs.map(|input| factor(input, settings.compute))
}

/// What is left of the probabilities, times the values, in these numbers. Those that values in bf16 are
/// weighed with are bf16.
pub(super) fn output(
    probabilities: FlexTensor,
    value: &FlexTensor,
    settings: Settings,
    numbers: DType,
) -> FlexTensor {
    let weights = factor(dropped(probabilities, settings.dropout), settings.compute);
    result(product_of_heads(&weights, value), numbers)
}

/// The settings for a query in these numbers: products of what is kept in bf16 are computed in bf16.
pub(super) fn settings_for(numbers: DType, settings: Settings) -> Settings {
    match numbers {
        DType::BF16 => Settings { compute: Compute::Bf16, ..settings },
        _ => settings,
    }
}

/// The probabilities, or their gradient, without what the mask drops.
pub(super) fn dropped(tensor: FlexTensor, mask: Option<Mask>) -> FlexTensor {
    match mask {
        Some(mask) => Flex::fused_dropout(tensor, mask),
        None => tensor,
    }
}

/// [`few::attention`], where it is all float32 and nothing is dropped.
fn of_few(
    [query, key, value]: [&FlexTensor; 3],
    mask: Option<&FlexTensor>,
    settings: Settings,
) -> Option<FlexTensor> {
    let all_f32 = [query, key, value].into_iter().chain(mask).all(|tensor| tensor.dtype() == DType::F32);
    if !all_f32 || settings.compute != Compute::F32 || settings.dropout.is_some() {
        return None;
    }
    let scores = [query.shape()[0], query.shape()[1], query.shape()[2], key.shape()[2]];
    let mask = mask.map(|mask| contiguous(mask.clone()));
    let rows = mask.as_ref().map(|mask| (values(mask), mask_rows(&scores, &mask.shape().to_vec())));
    few::attention(query, key, value, rows, settings.scale)
}

impl AttentionOps for Flex {
    fn fused_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        settings: Settings,
    ) -> FlexTensor {
        if let Some(output) = of_few([&query, &key, &value], None, settings) {
            return output;
        }
        let numbers = query.dtype();
        let settings = settings_for(numbers, settings);
        let [query, key, value] = factors([query, key, value], settings);
        output(probabilities(&query, &key, None, settings.scale), &value, settings, numbers)
    }

    fn fused_masked_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        mask: FlexTensor,
        settings: Settings,
    ) -> FlexTensor {
        if let Some(output) = of_few([&query, &key, &value], Some(&mask), settings) {
            return output;
        }
        let numbers = query.dtype();
        let settings = settings_for(numbers, settings);
        let [query, key, value] = factors([query, key, value], settings);
        output(probabilities(&query, &key, Some(mask), settings.scale), &value, settings, numbers)
    }
}
