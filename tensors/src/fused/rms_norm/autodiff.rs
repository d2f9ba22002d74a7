//! The backward pass of the division by the root mean square.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::operation::{RmsNormGradient, RmsNormOps};

#[derive(Debug)]
struct RmsNorm;

impl<B: RmsNormGradient> Backward<B, 2> for RmsNorm {
    /// The input, the reciprocals and the weight.
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x, reciprocals, weight] = ops.state;
        let [x_node, weight_node] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let of_x = match weight_node {
            Some(node) => {
                let (of_x, of_weight) = B::rms_norm_gradients(gradient, x, reciprocals, weight);
                grads.register::<B>(node.id, of_weight);
                of_x
            }
            None => B::rms_norm_gradient(gradient, x, reciprocals, weight),
        };
        if let Some(node) = x_node {
            grads.register::<B>(node.id, of_x);
        }
    }
}

impl<B: RmsNormGradient, C: CheckpointStrategy> RmsNormOps for Autodiff<B, C> {
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (output, reciprocals) = B::rms_normalised(x.clone(), weight.clone(), epsilon);
        let nodes = [x_node, weight_node];
        match Backward::<B, 2>::prepare::<C>(RmsNorm, nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([x, reciprocals, weight], output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}
