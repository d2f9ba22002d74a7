//! Layer normalisation's backward pass.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::operation::{LayerNormGradient, LayerNormOps};

/// What the backward pass needs of the forward pass: what was normalised, its moments and the weight.
type NormState<B> = [FloatTensor<B>; 3];

/// The gradients of what was normalised, of the weight and of the bias; of these only where one of them is
/// trained.
fn gradients<B: LayerNormGradient>(
    gradient: FloatTensor<B>,
    [x, moments, weight]: NormState<B>,
    is_trained: bool,
) -> [Option<FloatTensor<B>>; 3] {
    if !is_trained {
        return [Some(B::layer_norm_gradient(gradient, x, moments, weight)), None, None];
    }
    let (x, weight, bias) = B::layer_norm_gradients(gradient, x, moments, weight);
    [x, weight, bias].map(Some)
}

#[derive(Debug)]
struct LayerNorm;

impl<B: LayerNormGradient> Backward<B, 3> for LayerNorm {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let is_trained = ops.parents[1..].iter().any(Option::is_some);
        let gradients = gradients::<B>(grads.consume::<B>(&ops.node), ops.state, is_trained);
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct LayerNormOfSum;

impl<B: LayerNormGradient> Backward<B, 4> for LayerNormOfSum {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let is_trained = ops.parents[2..].iter().any(Option::is_some);
        let [sum, weight, bias] = gradients::<B>(grads.consume::<B>(&ops.node), ops.state, is_trained);
        for (node, gradient) in ops.parents.into_iter().zip([sum.clone(), sum, weight, bias]) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LayerNormGradient, C: CheckpointStrategy> LayerNormOps for Autodiff<B, C> {
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (output, moments) = B::normalised(x.clone(), weight.clone(), bias, epsilon);
        let nodes = [x_node, weight_node, bias_node];
        match Backward::<B, 3>::prepare::<C>(LayerNorm, nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([x, moments, weight], output),
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
        let (output, sum, moments) = B::normalised_sum(x, residual, weight.clone(), bias, epsilon);
        let nodes = [x_node, residual_node, weight_node, bias_node];
        match Backward::<B, 4>::prepare::<C>(LayerNormOfSum, nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([sum, moments, weight], output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}
