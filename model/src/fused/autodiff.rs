//! The backward passes of the fused operations.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::FusedOps;
use super::flex::{contiguous, normalise, softmax_of, tensor, values};
use super::kernels::{gelu, layer_norm, softmax};

#[derive(Debug)]
struct Gelu;

impl Backward<Flex, 1> for Gelu {
    /// The input.
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<Flex, _>(ops.parents, ops.node, grads, |grad| {
            let shape = grad.shape().to_vec();
            tensor(gelu::backward(values(&ops.state), values(&contiguous(grad))), shape)
        });
    }
}

#[derive(Debug)]
struct Softmax;

impl Backward<Flex, 1> for Softmax {
    /// The output, and the factor of the scores.
    type State = (FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (output, scale) = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |grad| {
            let shape = grad.shape().to_vec();
            // The last of the four dimensions.
            let width = shape[3];
            tensor(softmax::backward(values(&output), values(&contiguous(grad)), width, scale), shape)
        });
    }
}

/// What the backward pass of a layer norm needs of the forward pass.
#[derive(Debug, Clone)]
struct NormState {
    sum: FlexTensor,
    moments: Arc<Vec<layer_norm::Moments>>,
    weight: FlexTensor,
}

/// The gradients of `x + residual`, weight and bias.
fn norm_gradients(state: &NormState, grad: FlexTensor) -> [FlexTensor; 3] {
    let shape = grad.shape().to_vec();
    let width = state.weight.shape().to_vec();
    let sums = values(&state.sum);
    let gradients =
        layer_norm::backward(sums, &state.moments, values(&state.weight), values(&contiguous(grad)));
    [tensor(gradients.input, shape), tensor(gradients.weight, width.clone()), tensor(gradients.bias, width)]
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

impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let x = contiguous(x);
        let output = Flex::fused_gelu(x.clone());
        match Gelu.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

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

    fn fused_softmax(scores: FloatTensor<Self>, scale: f32) -> FloatTensor<Self> {
        let (scores, node) = scores.into_parts();
        on_tape::<C>(softmax_of(scores, None, scale), node, scale)
    }

    fn fused_masked_softmax(
        scores: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let (scores, node) = scores.into_parts();
        let (mask, _) = mask.into_parts();
        on_tape::<C>(softmax_of(scores, Some(mask), scale), node, scale)
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

/// A softmax whose scores are `node`.
fn on_tape<C: CheckpointStrategy>(
    output: FlexTensor,
    node: NodeGuard,
    scale: f32,
) -> FloatTensor<Autodiff<Flex, C>> {
    match Softmax.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((output.clone(), scale), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}
