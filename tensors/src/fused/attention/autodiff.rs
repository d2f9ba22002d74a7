//! Attention's backward pass.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};
use burn::tensor::DType;

use super::flex::{dropped, factors, output, probabilities, settings_for};
use super::operation::{AttentionOps, Settings};
use super::softmax;
use crate::fused::flex::{factor, result, values};
use crate::fused::product::{product, product_of_heads};

/// What the backward pass needs of the forward pass; query, key and value as they were multiplied.
#[derive(Debug, Clone)]
struct AttentionState {
    query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    /// Before any of them is dropped.
    probabilities: FlexTensor,
    settings: Settings,
    /// The numbers of query, key, value and their gradients.
    numbers: DType,
}

#[derive(Debug)]
struct Attention;

impl Backward<Flex, 3> for Attention {
    type State = AttentionState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [query_node, key_node, value_node] = ops.parents;
        let AttentionState { query, key, value, probabilities, settings, numbers } = ops.state;
        let of_heads = |a: &FlexTensor, b: &FlexTensor| result(product_of_heads(a, b), numbers);
        let gradient = factor(grads.consume::<Flex>(&ops.node), settings.compute);
        if let Some(node) = value_node {
            let weights = factor(dropped(probabilities.clone(), settings.dropout), settings.compute);
            grads.register::<Flex>(node.id, of_heads(&weights.transpose(2, 3), &gradient));
        }
        if query_node.is_none() && key_node.is_none() {
            return;
        }
        let of_weights = product(&gradient, &value.transpose(2, 3));
        let mut of_scores = dropped(of_weights, settings.dropout);
        // The last of the four dimensions.
        let width = probabilities.shape().to_vec()[3];
        let of_probabilities = of_scores.storage_mut::<f32>();
        softmax::backward_in_place(of_probabilities, values(&probabilities), width, settings.scale);
        let of_scores = factor(of_scores, settings.compute);
        if let Some(node) = query_node {
            grads.register::<Flex>(node.id, of_heads(&of_scores, &key));
        }
        if let Some(node) = key_node {
            grads.register::<Flex>(node.id, of_heads(&of_scores.transpose(2, 3), &query));
        }
    }
}

impl<C: CheckpointStrategy> AttentionOps for Autodiff<Flex, C> {
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        on_tape::<C>([query, key, value], None, settings)
    }

    fn fused_masked_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        on_tape::<C>([query, key, value], Some(mask.into_parts().0), settings)
    }
}

fn on_tape<C: CheckpointStrategy>(
    [query, key, value]: [FloatTensor<Autodiff<Flex, C>>; 3],
    mask: Option<FlexTensor>,
    settings: Settings,
) -> FloatTensor<Autodiff<Flex, C>> {
    let (query, query_node) = query.into_parts();
    let (key, key_node) = key.into_parts();
    let (value, value_node) = value.into_parts();
    let numbers = query.dtype();
    let settings = settings_for(numbers, settings);
    let [query, key, value] = factors([query, key, value], settings);
    let probabilities = probabilities(&query, &key, mask, settings.scale);
    match Attention.prepare::<C>([query_node, key_node, value_node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let output = output(probabilities.clone(), &value, settings, numbers);
            prep.finish(AttentionState { query, key, value, probabilities, settings, numbers }, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(output(probabilities, &value, settings, numbers)),
    }
}
