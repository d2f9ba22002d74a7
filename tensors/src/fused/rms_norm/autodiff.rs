//! The backward pass of the division by the root mean square.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::kernel;
use super::operation::RmsNormOps;
use crate::fused::flex::{changed, contiguous, tensor, values};

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone)]
struct NormState {
    x: FlexTensor,
    reciprocals: Arc<Vec<f32>>,
    weight: FlexTensor,
}

#[derive(Debug)]
struct RmsNorm;

impl Backward<Flex, 2> for RmsNorm {
    type State = NormState;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let NormState { x, reciprocals, weight } = ops.state;
        let mut of_weight = Vec::new();
        let of_x = changed(grads.consume::<Flex>(&ops.node), |gradient| {
            of_weight = kernel::backward_in_place(gradient, values(&x), &reciprocals, values(&weight));
        });
        let of_weight = tensor(of_weight, weight.shape().to_vec());
        for (node, gradient) in ops.parents.into_iter().zip([of_x, of_weight]) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

impl<C: CheckpointStrategy> RmsNormOps for Autodiff<Flex, C> {
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (x, weight) = (contiguous(x), contiguous(weight));
        let (output, reciprocals) = kernel::forward(values(&x), values(&weight), epsilon);
        let output = tensor(output, x.shape().to_vec());
        match RmsNorm.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                prep.finish(NormState { x, reciprocals: Arc::new(reciprocals), weight }, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}
