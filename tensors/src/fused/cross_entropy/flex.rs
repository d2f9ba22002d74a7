//! Softmax cross-entropy on the CPU.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};

use super::kernel::{self, Targets};
use super::operation::{CrossEntropyGradient, CrossEntropyOps};
use crate::fused::flex::{contiguous, tensor, values};

/// Classes of logits, the last of their two dimensions.
fn classes(logits: &FlexTensor) -> usize {
    logits.shape()[1]
}

impl CrossEntropyOps for Flex {
    fn fused_cross_entropy(logits: FlexTensor, targets: Targets) -> FlexTensor {
        let width = classes(&logits);
        let losses = kernel::losses(values(&contiguous(logits)), width, &targets);
        tensor(losses, [targets.labels.len()])
    }
}

impl CrossEntropyGradient for Flex {
    fn cross_entropy_with_gradient(logits: FlexTensor, targets: Targets) -> (FlexTensor, FlexTensor) {
        let shape = logits.shape().to_vec();
        let (losses, gradient) = kernel::with_gradient(values(&contiguous(logits)), shape[1], &targets);
        (tensor(losses, [targets.labels.len()]), tensor(gradient, shape))
    }

    fn scaled_rows(mut gradient: FlexTensor, factors: FlexTensor) -> FlexTensor {
        let (width, factors) = (classes(&gradient), contiguous(factors));
        if values(&factors).iter().any(|factor| *factor != 1.0) {
            kernel::scale_rows(gradient.storage_mut::<f32>(), width, values(&factors));
        }
        gradient
    }
}
