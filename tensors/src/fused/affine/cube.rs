//! The affine map on CubeCL's devices: burn's products, of rows that are laid out once.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Cube, TensorMetadata};
use burn::tensor::{DType, Shape};

use super::{AffineOps, Numbers};
use crate::device::compute::Compute;
use crate::fused::cube::layout::{LayoutOps, in_numbers};
use crate::fused::gelu::{GeluGradient, GeluOps};

/// What the backward pass needs of the forward pass, with the factors as they were multiplied.
#[derive(Debug)]
struct AffineState<B: Backend> {
    /// The rows, if the weight is trained.
    x: Option<FloatTensor<B>>,
    /// The weight, if a gradient flows on.
    weight: Option<FloatTensor<B>>,
    x_shape: Shape,
    /// The numbers of `x` and of the weight, and so of their gradients; and those that are multiplied.
    dtypes: [DType; 3],
}

impl<B: Backend> Clone for AffineState<B> {
    fn clone(&self) -> Self {
        let (x, weight) = (self.x.clone(), self.weight.clone());
        Self { x, weight, x_shape: self.x_shape.clone(), dtypes: self.dtypes }
    }
}

/// `[..., width]` as `[rows, width]`.
fn as_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let width = shape.last().copied().unwrap_or(1);
    B::float_reshape(x, Shape::from([shape.num_elements() / width, width]))
}

fn transposed<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_swap_dims(x, 0, 1)
}

impl<B: LayoutOps> AffineState<B> {
    /// The map's output, and what its backward pass may need.
    fn forward(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: Option<FloatTensor<B>>,
        Numbers { compute, output }: Numbers,
    ) -> (FloatTensor<B>, Self) {
        let multiplied = if compute == Compute::Bf16 { DType::BF16 } else { x.dtype() };
        let dtypes = [x.dtype(), weight.dtype(), multiplied];
        let x_shape = x.shape();
        let mut shape = x_shape.clone();
        let (last, width) = (shape.num_dims() - 1, weight.shape()[0]);
        shape[last] = width;
        let x = as_rows::<B>(B::laid_out(x, multiplied));
        let weight = B::laid_out(weight, multiplied);
        let product = in_numbers::<B>(B::float_matmul(x.clone(), transposed::<B>(weight.clone())), output);
        let sum = match bias {
            Some(bias) => {
                let bias = B::float_reshape(in_numbers::<B>(bias, output), Shape::from([1, width]));
                B::float_add(product, bias)
            }
            None => product,
        };
        (B::float_reshape(sum, shape), Self { x: Some(x), weight: Some(weight), x_shape, dtypes })
    }

    /// Without what no gradient needs.
    fn kept(self, x_tracked: bool, weight_tracked: bool) -> Self {
        Self { x: self.x.filter(|_| weight_tracked), weight: self.weight.filter(|_| x_tracked), ..self }
    }

    /// Registers the gradients of `x` and of the weight, which comes out in the weight's own layout.
    fn register(self, gradient: FloatTensor<B>, nodes: [Option<NodeId>; 2], grads: &mut Gradients) {
        let [x_dtype, weight_dtype, multiplied] = self.dtypes;
        let gradient = B::laid_out(gradient, multiplied);
        if let (Some(node), Some(weight)) = (nodes[0], self.weight) {
            let of_x = in_numbers::<B>(B::float_matmul(gradient.clone(), weight), x_dtype);
            grads.register::<B>(node, B::float_reshape(of_x, self.x_shape));
        }
        if let (Some(node), Some(x)) = (nodes[1], self.x) {
            let of_weight = B::float_matmul(transposed::<B>(gradient), x);
            grads.register::<B>(node, in_numbers::<B>(of_weight, weight_dtype));
        }
    }
}

#[derive(Debug)]
struct Affine;

impl<B: LayoutOps> Backward<B, 3> for Affine {
    type State = AffineState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = as_rows::<B>(grads.consume::<B>(&ops.node));
        let [x, weight, bias] = ops.parents.map(|node| node.map(|node| node.id));
        if let Some(node) = bias {
            let width = gradient.shape()[1];
            let sum = B::float_sum_dim(in_numbers::<B>(gradient.clone(), DType::F32), 0);
            grads.register::<B>(node, B::float_reshape(sum, Shape::from([width])));
        }
        ops.state.register(gradient, [x, weight], grads);
    }
}

#[derive(Debug)]
struct LinearMap;

impl<B: LayoutOps> Backward<B, 2> for LinearMap {
    type State = AffineState<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = as_rows::<B>(grads.consume::<B>(&ops.node));
        ops.state.register(gradient, ops.parents.map(|node| node.map(|node| node.id)), grads);
    }
}

impl AffineOps for Cube {
    fn affine_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        numbers: Numbers,
    ) -> FloatTensor<Self> {
        AffineState::<Self>::forward(x, weight, Some(bias), numbers).0
    }

    fn affine_of_gelu(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        numbers: Numbers,
    ) -> FloatTensor<Self> {
        Self::affine_rows(Self::fused_gelu(x), weight, bias, numbers)
    }

    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, numbers: Numbers) -> FloatTensor<Self> {
        AffineState::<Self>::forward(x, weight, None, numbers).0
    }
}

impl<B: LayoutOps + GeluGradient, C: CheckpointStrategy> AffineOps for Autodiff<B, C> {
    fn affine_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        numbers: Numbers,
    ) -> FloatTensor<Self> {
        let tracked = [x.is_tracked(), weight.is_tracked()];
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (output, state) = AffineState::<B>::forward(x, weight, Some(bias), numbers);
        let nodes = [x_node, weight_node, bias_node];
        match Backward::<B, 3>::prepare::<C>(Affine, nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state.kept(tracked[0], tracked[1]), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn affine_of_gelu(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        numbers: Numbers,
    ) -> FloatTensor<Self> {
        Self::affine_rows(Self::fused_gelu(x), weight, bias, numbers)
    }

    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, numbers: Numbers) -> FloatTensor<Self> {
        let tracked = [x.is_tracked(), weight.is_tracked()];
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (output, state) = AffineState::<B>::forward(x, weight, None, numbers);
        let nodes = [x_node, weight_node];
        match Backward::<B, 2>::prepare::<C>(LinearMap, nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state.kept(tracked[0], tracked[1]), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}
