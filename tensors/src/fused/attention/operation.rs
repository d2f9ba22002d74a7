//! Attention as a backend has it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use crate::device::compute::Compute;
use crate::fused::dropout::Mask;

/// What the scores are multiplied by, which probabilities are dropped, and the numbers of the products'
/// inputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(super) scale: f32,
    pub(super) dropout: Option<Mask>,
    pub(super) compute: Compute,
}

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cube"))]
pub(crate) trait AttentionOps: Backend {
    /// `dropout(softmax(scale · query·keyᵀ)) · value`.
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;

    /// The same with a mask that is added to the scaled scores; no gradient flows into it.
    fn fused_masked_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;
}
