//! A pre-norm transformer layer with separate projections, as both of CLIP's towers have it.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use blip2_tensors::nn::activation::Activation;
use blip2_tensors::nn::attention::KeyValue;
use blip2_tensors::nn::attention::encoder_attention;
use blip2_tensors::nn::drop_path::{BlockPaths, Branch};
use blip2_tensors::nn::feed_forward::FeedForward;
use blip2_tensors::nn::layers::LayerNorm;
use blip2_tensors::nn::projections::{ProjectionSizes, Projections};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// `x += out(attention(norm1 x)); x += fc2(act(fc1(norm2 x)))`.
#[derive(Module, Debug)]
pub struct ClipLayer {
    attention: Projections,
    norm1: LayerNorm,
    feed_forward: FeedForward,
    norm2: LayerNorm,
}

impl ClipLayer {
    /// A layer of zeros.
    pub(crate) fn new(
        width: usize,
        intermediate: usize,
        heads: usize,
        activation: Activation,
        layer_norm_eps: f64,
        device: &Device,
    ) -> Self {
        Self {
            attention: Projections::new(ProjectionSizes::square(width, heads), device),
            norm1: LayerNorm::new(width, layer_norm_eps, device),
            feed_forward: FeedForward::plain(width, intermediate, activation, device),
            norm2: LayerNorm::new(width, layer_norm_eps, device),
        }
    }

    /// The numbers that the matrices are kept in.
    pub(crate) fn kept_in(&self) -> DType {
        self.attention.kept_in()
    }

    /// # Shapes
    /// - x and output `[b, length, width]`; mask, added to the scores, `[b, 1, length, length]`
    pub(crate) fn forward(&self, x: Tensor<3>, mask: Option<Tensor<4>>) -> Tensor<3> {
        self.forward_on(x, mask, &BlockPaths::kept())
    }

    /// [`ClipLayer::forward`] with the branches that `paths` keeps.
    pub(crate) fn forward_on(&self, x: Tensor<3>, mask: Option<Tensor<4>>, paths: &BlockPaths) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let query = self.attention.query(normed.clone());
        let KeyValue { key, value } = self.attention.key_value(normed);
        let attended = encoder_attention(query, key, value, mask);
        let x = x + paths.scale(Branch::Attention, self.attention.output(attended));
        let inner = self.feed_forward.forward(self.norm2.forward(x.clone()));
        x + paths.scale(Branch::FeedForward, inner)
    }
}

impl NamedTensors for ClipLayer {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let maps = ["q_proj", "k_proj", "v_proj", "out_proj"];
        self.attention.visit_named(&join(prefix, "self_attn"), maps, visitor)?;
        self.norm1.visit_tensors(&join(prefix, "layer_norm1"), visitor)?;
        self.feed_forward.visit_named(&join(prefix, "mlp"), &["fc1", "fc2"], visitor)?;
        self.norm2.visit_tensors(&join(prefix, "layer_norm2"), visitor)
    }
}
