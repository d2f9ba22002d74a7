//! Attention over heads, and what it takes: keys and values, masks, heads in and out of a row.

use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Tensor, module};

use crate::device::compute::Compute;
use crate::fused;
use crate::nn::dropout::Dropout;

/// Keys and values of one layer, each `[b, heads, length, head width]`.
#[derive(Debug, Clone)]
pub struct KeyValue {
    /// Keys.
    pub key: Tensor<4>,
    /// Values.
    pub value: Tensor<4>,
}

impl KeyValue {
    /// Number of positions.
    pub fn length(&self) -> usize {
        self.key.dims()[2]
    }

    /// The positions of `self` followed by those of `other`.
    pub fn followed_by(&self, other: &Self) -> Self {
        Self {
            key: Tensor::cat(vec![self.key.clone(), other.key.clone()], 2),
            value: Tensor::cat(vec![self.value.clone(), other.value.clone()], 2),
        }
    }

    /// Batches one after the other.
    pub fn stack_batches(parts: &[&Self]) -> Self {
        Self {
            key: Tensor::cat(parts.iter().map(|part| part.key.clone()).collect(), 0),
            value: Tensor::cat(parts.iter().map(|part| part.value.clone()).collect(), 0),
        }
    }
}

/// `[batch, length, heads·width]` to `[batch, heads, length, width]`.
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, width] = x.dims();
    x.reshape([batch, length, heads, width / heads]).swap_dims(1, 2)
}

/// `[batch, heads, length, width]` to `[batch, length, heads·width]`.
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, length, width] = x.dims();
    x.swap_dims(1, 2).reshape([batch, length, heads * width])
}

/// What is added to the score of a position that must not be seen, as in BERT.
pub const BLOCKED: f32 = -10_000.0;

/// Turns visibility (`true`: may be seen) into an additive mask of the same shape.
pub fn additive_mask(visible: Tensor<4, Bool>) -> Tensor<4> {
    visible.bool_not().float() * BLOCKED
}

/// Scaled dot-product attention with dropout on the probabilities.
///
/// # Shapes
/// - query `[batch, heads, q, width]`, key and value `[batch, heads, k, width]`
/// - mask, added to the scores: broadcastable to `[batch, heads, q, k]`
/// - output `[batch, heads, q, width]`
pub fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<4>>,
    dropout: &mut Dropout,
    compute: Compute,
) -> Tensor<4> {
    let scale = 1.0 / (query.dims()[3] as f64).sqrt();
    fused::attention(query, key, value, mask, scale, dropout.next_mask(), compute)
}

/// [`attention`] of an image encoder; what is kept in bf16 has its softmax in float32, and what is
/// differentiated keeps the probabilities alone.
///
/// # Shapes
/// - those of [`attention`]
pub fn encoder_attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<4>>,
) -> Tensor<4> {
    if query.dtype() == DType::BF16 {
        return attention(query, key, value, mask, &mut Dropout::off(), Compute::Bf16);
    }
    if query.is_tracked() {
        return attention(query, key, value, mask, &mut Dropout::off(), Compute::F32);
    }
    module::attention(query, key, value, None, mask, AttentionModuleOptions::default())
}
