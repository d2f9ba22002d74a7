//! One decoder layer of OPT.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use super::OptConfig;
use super::config::LAYER_NORM_EPS;
use super::ends::OptEnds;
use crate::language::decoder_only::DecoderLayer;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::activation::Activation;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::causal::Visible;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::feed_forward::FeedForward;
use blip2_tensors::nn::layers::LayerNorm;
use blip2_tensors::nn::projections::{ProjectionSizes, Projections};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// `x += out(attention(norm1 x)); x += fc2(relu(fc1(norm2 x)))`, or, with the norms behind, `x = norm1(x +
/// out(attention x)); x = norm2(x + fc2(relu(fc1 x)))`.
#[derive(Module, Debug)]
pub(crate) struct OptLayer {
    attention: Projections,
    norm1: LayerNorm,
    feed_forward: FeedForward,
    norm2: LayerNorm,
    pre_norm: bool,
}

impl OptLayer {
    fn new(config: &OptConfig, device: &Device) -> Self {
        let width = config.width;
        Self {
            attention: Projections::new(ProjectionSizes::square(width, config.heads), device),
            norm1: LayerNorm::new(width, LAYER_NORM_EPS, device),
            feed_forward: FeedForward::plain(width, config.intermediate, Activation::Relu, device),
            norm2: LayerNorm::new(width, LAYER_NORM_EPS, device),
            pre_norm: config.pre_norm,
        }
    }
}

impl DecoderLayer for OptLayer {
    type Config = OptConfig;
    type Ends = OptEnds;
    /// The positions are in the vectors that the first layer reads.
    type Positions = ();
    const BODY: &'static str = "model.decoder";

    fn stack(config: &OptConfig, device: &Device) -> Vec<Self> {
        (0..config.depth).map(|_| Self::new(config, device)).collect()
    }

    fn validate(config: &OptConfig) -> Result<(), ModelError> {
        config.validate()
    }

    fn is_tied(config: &OptConfig) -> bool {
        config.tie_word_embeddings
    }

    fn kept_in(&self) -> DType {
        self.attention.kept_in()
    }

    fn forward(
        &self,
        x: Tensor<3>,
        (cache, index): (&mut KeyValueCache, usize),
        (): &(),
        visible: &Visible,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let mut attend = |x: Tensor<3>, dropout: &mut Dropout| {
            dropout.forward(self.attention.attend_cached(x, (&mut *cache, index), |x| x, visible))
        };
        if self.pre_norm {
            let x = x.clone() + attend(self.norm1.forward(x), dropout);
            let inner = self.feed_forward.forward(self.norm2.forward(x.clone()));
            return x + dropout.forward(inner);
        }
        let x = self.norm1.forward_sum(attend(x.clone(), dropout), x);
        let inner = self.feed_forward.forward(x.clone());
        self.norm2.forward_sum(dropout.forward(inner), x)
    }
}

impl NamedTensors for OptLayer {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let maps = ["q_proj", "k_proj", "v_proj", "out_proj"];
        self.attention.visit_named(&join(prefix, "self_attn"), maps, visitor)?;
        self.norm1.visit_tensors(&join(prefix, "self_attn_layer_norm"), visitor)?;
        self.feed_forward.visit_named(prefix, &["fc1", "fc2"], visitor)?;
        self.norm2.visit_tensors(&join(prefix, "final_layer_norm"), visitor)
    }
}
