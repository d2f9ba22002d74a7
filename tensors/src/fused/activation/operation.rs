//! Activations as a backend has them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

/// The operations as a backend has them.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait ActivationOps: Backend {
    /// `max(x, 0)`.
    fn fused_relu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `gelu(x) · gate`, with the GELU by a hyperbolic tangent.
    fn fused_gated_gelu(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self>;
}
