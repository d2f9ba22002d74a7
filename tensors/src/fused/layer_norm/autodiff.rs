//! Layer normalisation's backward pass.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::flex::normalise;
use super::kernel;
use super::operation::LayerNormOps;
use crate::fused::flex::{changed, contiguous, tensor, values};

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone)]
struct NormState {
    sum: FlexTensor,
    moments: Arc<Vec<kernel::Moments>>,
    weight: FlexTensor,
}

/// The gradients of `x + residual`, weight and bias.
fn norm_gradients(state: &NormState, grad: FlexTensor) -> [FlexTensor; 3] {
    let mut of_rows = [const { Vec::new() }; 2];
    let (sums, weight) = (values(&state.sum), values(&state.weight));
    let of_sum = changed(grad, |gradient| {
        of_rows = kernel::backward_in_place(gradient, sums, &state.moments, weight);
    });
    let [weight, bias] = of_rows.map(|values| tensor(values, state.weight.shape().to_vec()));
    [of_sum, weight, bias]
}

#[derive(Debug)]
struct LayerNorm;

impl Backward<Flex, 3> for LayerNorm {
    type State = NormState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradients = norm_gradients(&ops.state, grads.consume::<Flex>(&ops.node));
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct LayerNormOfSum;

impl Backward<Flex, 4> for LayerNormOfSum {
    type State = NormState;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [sum, weight, bias] = norm_gradients(&ops.state, grads.consume::<Flex>(&ops.node));
        for (node, gradient) in ops.parents.into_iter().zip([sum.clone(), sum, weight, bias]) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

impl<C: CheckpointStrategy> LayerNormOps for Autodiff<Flex, C> {
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (output, state) = forward_norm(x, None, weight, bias, epsilon);
        match LayerNorm.prepare::<C>([x_node, weight_node, bias_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fused_layer_norm_of_sum(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (residual, residual_node) = residual.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (output, state) = forward_norm(x, Some(residual), weight, bias, epsilon);
        let nodes = [x_node, residual_node, weight_node, bias_node];
        match LayerNormOfSum.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}

/// Output, and what the backward pass needs.
fn forward_norm(
    x: FlexTensor,
    residual: Option<FlexTensor>,
    weight: FlexTensor,
    bias: FlexTensor,
    epsilon: f32,
) -> (FlexTensor, NormState) {
    let (weight, bias) = (contiguous(weight), contiguous(bias));
    let normalised = normalise(x, residual, &weight, &bias, epsilon);
    let state = NormState { sum: normalised.sum, moments: Arc::new(normalised.moments), weight };
    (normalised.output, state)
}
