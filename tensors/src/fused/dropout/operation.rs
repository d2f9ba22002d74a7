//! Dropout as a backend has it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::kernel::Mask;

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait DropoutOps: Backend {
    /// The elements that the mask keeps, multiplied by its factor.
    fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self>;
}
