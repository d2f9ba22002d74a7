//! GELU as a backend has it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait GeluOps: Backend {
    /// The exact GELU of every element.
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}
