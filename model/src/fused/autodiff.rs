//! The backward passes of the fused operations.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::flex::{contiguous, normalise, tensor, values};
use super::kernels::{cross_entropy, gelu, layer_norm};
use super::{FusedOps, Mask, Targets};

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
struct Dropout;

impl Backward<Flex, 1> for Dropout {
    type State = Mask;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<Flex, _>(ops.parents, ops.node, grads, |grad| Flex::fused_dropout(grad, ops.state));
    }
}

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
                cross_entropy::scale_rows(gradient.storage_mut::<f32>(), width, values(&factors));
            }
            gradient
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

    fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = Flex::fused_dropout(x, mask);
        match Dropout.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(mask, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fused_cross_entropy(logits: FloatTensor<Self>, targets: Targets) -> FloatTensor<Self> {
        let (logits, node) = logits.into_parts();
        match CrossEntropy.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let shape = logits.shape().to_vec();
                let (losses, gradient) =
                    cross_entropy::with_gradient(values(&contiguous(logits)), shape[1], &targets);
                prep.finish(tensor(gradient, shape), tensor(losses, vec![targets.labels.len()]))
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::fused_cross_entropy(logits, targets)),
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
