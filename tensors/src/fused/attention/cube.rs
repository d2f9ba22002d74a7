//! Attention on CubeCL's devices: products as burn has them, softmax and its derivative one launch each.
//!
//! The backward pass computes the probabilities again from query and key, so that a tape holds none.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Cube, TensorMetadata};
use burn::tensor::DType;

use super::operation::{AttentionOps, Settings};
use super::probabilities::SoftmaxOps;
use crate::device::compute::Compute;
use crate::fused::cube::layout::{LayoutOps, in_numbers};
use crate::fused::dropout::Mask;

/// What attention on these devices is made of.
pub(super) trait Operations: SoftmaxOps + LayoutOps {}

impl<B: SoftmaxOps + LayoutOps> Operations for B {}

/// Query, key and value as they are multiplied, the mask, and how they are combined.
#[derive(Debug)]
struct Inputs<B: Backend> {
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    mask: Option<FloatTensor<B>>,
    settings: Settings,
    /// The numbers of the output and of the gradients.
    numbers: DType,
}

impl<B: Backend> Clone for Inputs<B> {
    fn clone(&self) -> Self {
        let [query, key, value] = [&self.query, &self.key, &self.value].map(Clone::clone);
        Self { query, key, value, mask: self.mask.clone(), settings: self.settings, numbers: self.numbers }
    }
}

fn transposed<B: Backend>(x: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_swap_dims(x.clone(), 2, 3)
}

impl<B: Operations> Inputs<B> {
    fn new(
        [query, key, value]: [FloatTensor<B>; 3],
        mask: Option<FloatTensor<B>>,
        settings: Settings,
    ) -> Self {
        let numbers = query.dtype();
        // What is kept in bf16 is multiplied so.
        let compute = if numbers == DType::BF16 { Compute::Bf16 } else { settings.compute };
        let settings = Settings { compute, ..settings };
        let [query, key, value] = [query, key, value].map(|x| B::laid_out(x, compute.dtype()));
        Self { query, key, value, mask, settings, numbers }
    }

    /// `a·b` of factors in the numbers that are multiplied.
    fn product(&self, a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
        in_numbers::<B>(B::float_matmul(a, b), self.numbers)
    }

    /// In the numbers that are multiplied.
    fn scores(&self) -> FloatTensor<B> {
        B::float_matmul(self.query.clone(), transposed::<B>(&self.key))
    }

    /// What is left of the probabilities after this dropout, in these numbers.
    fn probabilities(&self, scores: FloatTensor<B>, dropout: Option<Mask>, numbers: DType) -> FloatTensor<B> {
        let settings = Settings { dropout, ..self.settings };
        match self.mask.clone() {
            Some(mask) => B::softmax_of_masked_scores(scores, mask, settings, numbers),
            None => B::softmax_of_scores(scores, settings, numbers),
        }
    }

    /// The probabilities as they are multiplied with the values.
    fn weights(&self, scores: FloatTensor<B>) -> FloatTensor<B> {
        self.probabilities(scores, self.settings.dropout, self.settings.compute.dtype())
    }

    fn output(&self) -> FloatTensor<B> {
        self.product(self.weights(self.scores()), self.value.clone())
    }
}

#[derive(Debug)]
struct Attention;

impl<B: Operations> Backward<B, 3> for Attention {
    type State = Inputs<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [query_node, key_node, value_node] = ops.parents;
        let inputs = ops.state;
        let settings = inputs.settings;
        let multiplied = settings.compute.dtype();
        let gradient = B::laid_out(grads.consume::<B>(&ops.node), multiplied);
        let scores = inputs.scores();
        let probabilities = inputs.probabilities(scores.clone(), None, DType::F32);
        if let Some(node) = value_node {
            let weights = match settings.dropout.is_none() && multiplied == DType::F32 {
                true => probabilities.clone(),
                false => inputs.weights(scores),
            };
            let of_value = inputs.product(transposed::<B>(&weights), gradient.clone());
            grads.register::<B>(node.id, of_value);
        }
        if query_node.is_none() && key_node.is_none() {
            return;
        }
        let of_weights = B::float_matmul(gradient, transposed::<B>(&inputs.value));
        let of_scores = B::gradient_of_scores(of_weights, probabilities, settings);
        if let Some(node) = query_node {
            let of_query = inputs.product(of_scores.clone(), inputs.key.clone());
            grads.register::<B>(node.id, of_query);
        }
        if let Some(node) = key_node {
            let of_key = inputs.product(transposed::<B>(&of_scores), inputs.query.clone());
            grads.register::<B>(node.id, of_key);
        }
    }
}

impl AttentionOps for Cube {
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        Inputs::<Self>::new([query, key, value], None, settings).output()
    }

    fn fused_masked_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        Inputs::<Self>::new([query, key, value], Some(mask), settings).output()
    }
}

impl<B: Operations, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        on_tape::<B, C>([query, key, value], None, settings)
    }

    fn fused_masked_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        on_tape::<B, C>([query, key, value], Some(mask.into_parts().0), settings)
    }
}

fn on_tape<B: Operations, C: CheckpointStrategy>(
    [query, key, value]: [FloatTensor<Autodiff<B, C>>; 3],
    mask: Option<FloatTensor<B>>,
    settings: Settings,
) -> FloatTensor<Autodiff<B, C>> {
    let (query, query_node) = query.into_parts();
    let (key, key_node) = key.into_parts();
    let (value, value_node) = value.into_parts();
    let inputs = Inputs::<B>::new([query, key, value], mask, settings);
    let output = inputs.output();
    let nodes = [query_node, key_node, value_node];
    match Backward::<B, 3>::prepare::<C>(Attention, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(inputs, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}
