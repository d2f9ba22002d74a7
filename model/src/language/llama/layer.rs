//! One decoder layer of Llama.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use super::LlamaConfig;
use super::ends::LlamaEnds;
use super::rotary::Rotations;
use crate::language::decoder_only::DecoderLayer;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::causal::Visible;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::feed_forward::FeedForward;
use blip2_tensors::nn::layers::RmsNorm;
use blip2_tensors::nn::projections::{ProjectionSizes, Projections};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// `x += out(attention(norm1 x)); x += down(act(gate(norm2 x)) · up(norm2 x))`.
#[derive(Module, Debug)]
pub(crate) struct LlamaLayer {
    attention: Projections,
    norm1: RmsNorm,
    feed_forward: FeedForward,
    norm2: RmsNorm,
}

impl LlamaLayer {
    fn new(config: &LlamaConfig, device: &Device) -> Self {
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
}

impl DecoderLayer for LlamaLayer {
    type Config = LlamaConfig;
    type Ends = LlamaEnds;
    type Positions = Rotations;
    const BODY: &'static str = "model";

    fn stack(config: &LlamaConfig, device: &Device) -> Vec<Self> {
        (0..config.depth).map(|_| Self::new(config, device)).collect()
    }

    fn validate(config: &LlamaConfig) -> Result<(), ModelError> {
        config.validate()
    }

    fn is_tied(config: &LlamaConfig) -> bool {
        config.tie_word_embeddings
    }

    fn kept_in(&self) -> DType {
        self.attention.kept_in()
    }

    /// Llama was published without dropout.
    fn forward(
        &self,
        x: Tensor<3>,
        cache: (&mut KeyValueCache, usize),
        rotations: &Rotations,
        visible: &Visible,
        _: &mut Dropout,
    ) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let x = x + self.attention.attend_cached(normed, cache, |x| rotations.apply(x), visible);
        x.clone() + self.feed_forward.forward(self.norm2.forward(x))
    }
}

impl NamedTensors for LlamaLayer {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let maps = ["q_proj", "k_proj", "v_proj", "o_proj"];
        self.attention.visit_named(&join(prefix, "self_attn"), maps, visitor)?;
        self.norm1.visit_tensors(&join(prefix, "input_layernorm"), visitor)?;
        let maps = ["gate_proj", "up_proj", "down_proj"];
        self.feed_forward.visit_named(&join(prefix, "mlp"), &maps, visitor)?;
        self.norm2.visit_tensors(&join(prefix, "post_attention_layernorm"), visitor)
    }
}
