//! The affine map's backward pass.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::AffineOps;
use super::flex::{
    as_rows, contiguous, forward, gradient_of_bias, gradient_of_weight, gradient_of_x, output_shape,
};

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone)]
struct AffineState {
    /// The rows, if the weight is trained.
    x: Option<FlexTensor>,
    /// The weight, if a gradient flows on.
    weight: Option<FlexTensor>,
    x_shape: Vec<usize>,
}

#[derive(Debug)]
struct Affine;

impl Backward<Flex, 3> for Affine {
    type State = AffineState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = as_rows(grads.consume::<Flex>(&ops.node));
        let [x_node, weight_node, bias_node] = ops.parents;
        let state = ops.state;
        if let Some(node) = bias_node {
            grads.register::<Flex>(node.id, gradient_of_bias(&gradient));
        }
        if let (Some(node), Some(weight)) = (x_node, state.weight) {
            grads.register::<Flex>(node.id, gradient_of_x(gradient.clone(), weight, state.x_shape));
        }
        if let (Some(node), Some(x)) = (weight_node, state.x) {
            grads.register::<Flex>(node.id, gradient_of_weight(gradient, x));
        }
    }
}

impl<C: CheckpointStrategy> AffineOps for Autodiff<Flex, C> {
    fn affine_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (x_shape, shape) = (x.shape().to_vec(), output_shape(&x, &weight));
        let x = as_rows(x);
        let output = forward(&x, &weight, &contiguous(bias), shape);
        match Affine.prepare::<C>([x_node, weight_node, bias_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = AffineState {
                    x: weight_tracked.then_some(x),
                    weight: x_tracked.then_some(weight),
                    x_shape,
                };
                prep.finish(state, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}
