//! Division by the root mean square as a backend has it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait RmsNormOps: Backend {
    /// `x / √(mean(x²) + ε) · weight` over the last dimension.
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;
}
