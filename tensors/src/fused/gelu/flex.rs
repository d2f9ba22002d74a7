//! GELU on the CPU.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};

use super::kernel;
use super::operation::{GeluGradient, GeluOps};
use crate::fused::flex::{changed, contiguous, tensor, values};

impl GeluOps for Flex {
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        let shape = x.shape().to_vec();
        tensor(kernel::forward(values(&contiguous(x))), shape)
    }
}

impl GeluGradient for Flex {
    fn gelu_gradient(gradient: FlexTensor, x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        changed(gradient, |gradient| kernel::backward_in_place(gradient, values(&x)))
    }
}
