//! BERT's attention block: projections, attention, output map, residual, norm.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use super::config::QFormerConfig;
use blip2_tensors::nn::attention::{KeyValue, attention, merge_heads, split_heads};
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::layers::{LayerNorm, Linear};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// Attention with its residual and norm.
#[derive(Module, Debug)]
pub(crate) struct AttentionBlock {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: LayerNorm,
    heads: usize,
}

impl AttentionBlock {
    pub(crate) fn new(config: &QFormerConfig, key_width: usize, device: &Device) -> Self {
        let hidden = config.hidden;
        Self {
            query: Linear::new(hidden, hidden, true, device),
            key: Linear::new(key_width, hidden, true, device),
            value: Linear::new(key_width, hidden, true, device),
            output: Linear::new(hidden, hidden, true, device),
            norm: LayerNorm::new(hidden, config.layer_norm_eps, device),
            heads: config.heads,
        }
    }

    /// Keys and values of `x [b, length, key width]`.
    pub(crate) fn key_value(&self, x: Tensor<3>) -> KeyValue {
        KeyValue {
            key: split_heads(self.key.forward(x.clone()), self.heads),
            value: split_heads(self.value.forward(x), self.heads),
        }
    }

    fn attention(
        &self,
        query: Tensor<4>,
        seen: &KeyValue,
        mask: Option<Tensor<4>>,
        dropout: &mut Dropout,
    ) -> Tensor<4> {
        let KeyValue { key, value } = seen.clone();
        attention(query, key, value, mask, dropout, self.query.compute)
    }

    /// How much each position of `x` attends to each of `seen`, the mean over heads: `[b, length, seen]`.
    pub(super) fn weights(&self, x: Tensor<3>, seen: &KeyValue) -> Tensor<3> {
        let query = split_heads(self.query.forward(x), self.heads);
        let scale = (query.dims()[3] as f64).sqrt();
        let scores = query.matmul(seen.key.clone().swap_dims(2, 3)) / scale;
        softmax(scores, 3).mean_dim(1).squeeze_dim::<3>(1)
    }

    /// `norm(x + dropout(output(attention(x, seen))))`.
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        seen: &KeyValue,
        mask: Option<Tensor<4>>,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let query = split_heads(self.query.forward(x.clone()), self.heads);
        let attended = self.attention(query, seen, mask, dropout);
        let output = self.output.forward(merge_heads(attended));
        self.norm.forward_sum(dropout.forward(output), x)
    }

    /// [`AttentionBlock::forward`] where queries attend in another batch than that of `x`: `arrange` makes it
    /// of theirs, `restore` takes what was attended to back.
    pub(crate) fn forward_arranged(
        &self,
        x: Tensor<3>,
        seen: &KeyValue,
        arrange: impl FnOnce(Tensor<3>) -> Tensor<3>,
        restore: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let query = split_heads(arrange(self.query.forward(x.clone())), self.heads);
        let attended = self.attention(query, seen, None, &mut Dropout::off());
        let output = self.output.forward(restore(merge_heads(attended)));
        self.norm.forward_sum(output, x)
    }
}

impl NamedTensors for AttentionBlock {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.query.visit_tensors(&join(prefix, "self.query"), visitor)?;
        self.key.visit_tensors(&join(prefix, "self.key"), visitor)?;
        self.value.visit_tensors(&join(prefix, "self.value"), visitor)?;
        self.output.visit_tensors(&join(prefix, "output.dense"), visitor)?;
        self.norm.visit_tensors(&join(prefix, "output.LayerNorm"), visitor)
    }
}
