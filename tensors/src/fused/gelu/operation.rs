//! GELU as a backend has it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait GeluOps: Backend {
    /// The exact GELU of every element.
    #[fusion(dtype = x, shape = x)]
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Its derivative, as a backend without a tape has it.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait GeluGradient: GeluOps {
    /// The gradient of `x` from that of its GELU, `gradient · (Φ(x) + x φ(x))`.
    #[fusion(dtype = gradient, shape = gradient)]
    fn gelu_gradient(gradient: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self>;
}
