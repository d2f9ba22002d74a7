//! The cross-entropy's backward pass.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::kernel::{self, Targets};
use super::operation::CrossEntropyOps;
use crate::fused::flex::{contiguous, tensor, values};

#[derive(Debug)]
struct CrossEntropy;

impl Backward<Flex, 1> for CrossEntropy {
    /// The gradient of each row's loss.
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut gradient = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |grad| {
            let width = gradient.shape().to_vec()[1];
            let factors = contiguous(grad);
            if values(&factors).iter().any(|factor| *factor != 1.0) {
                kernel::scale_rows(gradient.storage_mut::<f32>(), width, values(&factors));
            }
            gradient
        });
    }
}

impl<C: CheckpointStrategy> CrossEntropyOps for Autodiff<Flex, C> {
    fn fused_cross_entropy(logits: FloatTensor<Self>, targets: Targets) -> FloatTensor<Self> {
        let (logits, node) = logits.into_parts();
        match CrossEntropy.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let shape = logits.shape().to_vec();
                let (losses, gradient) =
                    kernel::with_gradient(values(&contiguous(logits)), shape[1], &targets);
                prep.finish(tensor(gradient, shape), tensor(losses, vec![targets.labels.len()]))
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::fused_cross_entropy(logits, targets)),
        }
    }
}
