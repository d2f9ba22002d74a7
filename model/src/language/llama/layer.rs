//! One decoder layer of Llama.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use super::LlamaConfig;
use super::rotary::Rotations;
use crate::error::ModelError;
use crate::nn::attention::KeyValue;
use crate::nn::cache::KeyValueCache;
use crate::nn::causal::Visible;
use crate::nn::feed_forward::FeedForward;
use crate::nn::layers::RmsNorm;
use crate::nn::projections::{ProjectionSizes, Projections};
use crate::nn::tensors::{NamedTensors, TensorVisitor, join};

/// `x += out(attention(norm1 x)); x += down(act(gate(norm2 x)) · up(norm2 x))`.
#[derive(Module, Debug)]
pub(super) struct LlamaLayer {
    attention: Projections,
    norm1: RmsNorm,
    feed_forward: FeedForward,
    norm2: RmsNorm,
}

impl LlamaLayer {
    pub(super) fn new(config: &LlamaConfig, device: &Device) -> Self {
        let sizes = ProjectionSizes {
            width: config.width,
            heads: config.heads,
            key_heads: config.key_heads(),
            head_width: config.head_width(),
            bias: false,
            scaled: true,
        };
        let norm = || RmsNorm::new(config.width, config.rms_norm_eps, device);
        Self {
            attention: Projections::new(sizes, device),
            norm1: norm(),
            feed_forward: FeedForward::gated(config.width, config.intermediate, config.activation, device),
            norm2: norm(),
        }
    }

    /// The numbers that the matrices are kept in.
    pub(super) fn kept_in(&self) -> DType {
        self.attention.kept_in()
    }

    /// The layer's output for the positions of `x`, which are added to those of layer `index` in the cache.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        (cache, index): (&mut KeyValueCache, usize),
        rotations: &Rotations,
        visible: &Visible,
    ) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let query = rotations.apply(self.attention.query(normed.clone()));
        let KeyValue { key, value } = self.attention.key_value(normed);
        let seen = cache.read(index, KeyValue { key: rotations.apply(key), value });
        let x = x + self.attention.attend(query, seen, visible);
        x.clone() + self.feed_forward.forward(self.norm2.forward(x))
    }
}

impl NamedTensors for LlamaLayer {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), ModelError> {
        let maps = ["q_proj", "k_proj", "v_proj", "o_proj"];
        self.attention.visit_named(&join(prefix, "self_attn"), maps, visitor)?;
        self.norm1.visit_tensors(&join(prefix, "input_layernorm"), visitor)?;
        let maps = ["gate_proj", "up_proj", "down_proj"];
        self.feed_forward.visit_named(&join(prefix, "mlp"), &maps, visitor)?;
        self.norm2.visit_tensors(&join(prefix, "post_attention_layernorm"), visitor)
    }
}
