//! Dropout as a backend has it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::kernel::Mask;

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait DropoutOps: Backend {
    /// The elements that the mask keeps, multiplied by its factor.
    #[fusion(dtype = x, shape = x)]
    fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self>;
}
