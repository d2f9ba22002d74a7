//! The cross-entropy's backward pass.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;

use super::kernel::Targets;
use super::operation::{CrossEntropyGradient, CrossEntropyOps};

#[derive(Debug)]
struct CrossEntropy;

impl<B: CrossEntropyGradient> Backward<B, 1> for CrossEntropy {
    /// The gradient of each row's loss.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<B, _>(ops.parents, ops.node, grads, |factors| B::scaled_rows(ops.state, factors));
    }
}

impl<B: CrossEntropyGradient, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
    fn fused_cross_entropy(logits: FloatTensor<Self>, targets: Targets) -> FloatTensor<Self> {
        let (logits, node) = logits.into_parts();
        match Backward::<B, 1>::prepare::<C>(CrossEntropy, [node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (losses, gradient) = B::cross_entropy_with_gradient(logits, targets);
                prep.finish(gradient, losses)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::fused_cross_entropy(logits, targets)),
        }
    }
}
