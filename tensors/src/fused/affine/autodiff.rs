//! The affine map's backward pass.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};
use burn::tensor::DType;

use super::flex::{
    as_rows, forward, gelu_rows, gradient_of_bias, gradient_of_weight, gradient_of_x, output_shape,
};
use super::{AffineOps, Numbers};
use crate::device::compute::Compute;
use crate::fused::flex::{changed, contiguous, factor, result, values};
use crate::fused::gelu::kernel as gelu;

/// What the backward pass needs of the forward pass, with the factors as they were multiplied.
#[derive(Debug, Clone)]
struct AffineState {
    /// The rows, if the weight is trained.
    x: Option<FlexTensor>,
    /// The weight, if a gradient flows on.
    weight: Option<FlexTensor>,
    x_shape: Vec<usize>,
    /// The numbers of `x` and of the weight, and so of their gradients.
    dtypes: [DType; 2],
    compute: Compute,
}

impl AffineState {
    /// The gradients of `x` and the weight, where there are any, from that of the output's rows.
    fn gradients(self, gradient: FlexTensor) -> [Option<FlexTensor>; 2] {
        let gradient = factor(gradient, self.compute);
        let [x_dtype, weight_dtype] = self.dtypes;
        let of_x = self.weight.map(|weight| gradient_of_x(&gradient, &weight, self.x_shape));
        let of_weight = self.x.map(|x| gradient_of_weight(&gradient, &x));
        [of_x.map(|of_x| result(of_x, x_dtype)), of_weight.map(|of_weight| result(of_weight, weight_dtype))]
    }
}

#[derive(Debug)]
struct Affine;

impl Backward<Flex, 3> for Affine {
    type State = AffineState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = as_rows(grads.consume::<Flex>(&ops.node));
        let [x_node, weight_node, bias_node] = ops.parents;
        if let Some(node) = bias_node {
            let gradient = factor(gradient.clone(), Compute::F32);
            grads.register::<Flex>(node.id, gradient_of_bias(&gradient));
        }
        for (node, gradient) in [x_node, weight_node].into_iter().zip(ops.state.gradients(gradient)) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// What the backward pass of a map of a GELU needs: its `x` is kept as it was before the GELU.
#[derive(Debug, Clone)]
struct OfGeluState {
    before: FlexTensor,
    /// Without rows.
    map: AffineState,
    weight_tracked: bool,
}

#[derive(Debug)]
struct AffineOfGelu;

impl Backward<Flex, 3> for AffineOfGelu {
    type State = OfGeluState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = as_rows(grads.consume::<Flex>(&ops.node));
        let OfGeluState { before, mut map, weight_tracked } = ops.state;
        let [x_node, weight_node, bias_node] = ops.parents;
        if let Some(node) = bias_node {
            let gradient = factor(gradient.clone(), Compute::F32);
            grads.register::<Flex>(node.id, gradient_of_bias(&gradient));
        }
        map.x = weight_tracked.then(|| gelu_rows(&before, map.compute));
        let [of_gelu, of_weight] = map.gradients(gradient);
        if let (Some(node), Some(gradient)) = (weight_node, of_weight) {
            grads.register::<Flex>(node.id, gradient);
        }
        if let (Some(node), Some(gradient)) = (x_node, of_gelu) {
            let of_x = changed(gradient, |gradient| gelu::backward_in_place(gradient, values(&before)));
            grads.register::<Flex>(node.id, of_x);
        }
    }
}

#[derive(Debug)]
struct LinearMap;

impl Backward<Flex, 2> for LinearMap {
    type State = AffineState;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = as_rows(grads.consume::<Flex>(&ops.node));
        for (node, gradient) in ops.parents.into_iter().zip(ops.state.gradients(gradient)) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// The factors as they are multiplied, what the backward pass needs of them, and the output's shape.
fn factors(
    (x, x_tracked): (FlexTensor, bool),
    (weight, weight_tracked): (FlexTensor, bool),
    compute: Compute,
) -> (FlexTensor, FlexTensor, AffineState, Vec<usize>) {
    let (x_shape, shape) = (x.shape().to_vec(), output_shape(&x, &weight));
    let dtypes = [x.dtype(), weight.dtype()];
    let (x, weight) = (factor(as_rows(x), compute), factor(weight, compute));
    let state = AffineState {
        x: weight_tracked.then(|| x.clone()),
        weight: x_tracked.then(|| weight.clone()),
        x_shape,
        dtypes,
        compute,
    };
    (x, weight, state, shape)
}

impl<C: CheckpointStrategy> AffineOps for Autodiff<Flex, C> {
    fn affine_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        numbers: Numbers,
    ) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (x, weight, state, shape) = factors((x, x_tracked), (weight, weight_tracked), numbers.compute);
        let output = forward(&x, &weight, Some(bias), shape, numbers);
        match Affine.prepare::<C>([x_node, weight_node, bias_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn affine_of_gelu(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        numbers: Numbers,
    ) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let before = contiguous(x);
        let rows = gelu_rows(&before, numbers.compute);
        let dtypes = [before.dtype(), weight.dtype()];
        let (x_shape, shape) = (before.shape().to_vec(), output_shape(&before, &weight));
        let weight = factor(weight, numbers.compute);
        let output = forward(&rows, &weight, Some(bias), shape, numbers);
        let weight = x_tracked.then_some(weight);
        let map = AffineState { x: None, weight, x_shape, dtypes, compute: numbers.compute };
        match AffineOfGelu.prepare::<C>([x_node, weight_node, bias_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(OfGeluState { before, map, weight_tracked }, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, numbers: Numbers) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (x, weight, state, shape) = factors((x, x_tracked), (weight, weight_tracked), numbers.compute);
        let output = forward(&x, &weight, None, shape, numbers);
        match LinearMap.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}
