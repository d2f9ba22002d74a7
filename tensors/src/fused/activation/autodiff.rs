//! The activations' backward passes.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::kernel;
use super::operation::ActivationOps;
use crate::fused::flex::{changed, contiguous, tensor, values};

#[derive(Debug)]
struct Relu;

impl Backward<Flex, 1> for Relu {
    /// The output.
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<Flex, _>(ops.parents, ops.node, grads, |grad| {
            changed(grad, |gradient| kernel::relu_backward_in_place(gradient, values(&ops.state)))
        });
    }
}

#[derive(Debug)]
struct GatedGelu;

impl Backward<Flex, 2> for GatedGelu {
    /// `x` and the gate.
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x, gate] = ops.state;
        let mut of_gate = Vec::new();
        let of_x = changed(grads.consume::<Flex>(&ops.node), |gradient| {
            of_gate = kernel::gated_gelu_backward_in_place(gradient, values(&x), values(&gate));
        });
        let of_gate = tensor(of_gate, gate.shape().to_vec());
        for (node, gradient) in ops.parents.into_iter().zip([of_x, of_gate]) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

impl<C: CheckpointStrategy> ActivationOps for Autodiff<Flex, C> {
    fn fused_relu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = Flex::fused_relu(x);
        match Relu.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fused_gated_gelu(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (gate, gate_node) = gate.into_parts();
        let (x, gate) = (contiguous(x), contiguous(gate));
        let output = Flex::fused_gated_gelu(x.clone(), gate.clone());
        match GatedGelu.prepare::<C>([x_node, gate_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([x, gate], output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}
