//! A pre-norm transformer layer with separate projections, as both of CLIP's towers have it.

use burn::module::Module;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, module};

use crate::ModelError;
use crate::activation::Activation;
use crate::layers::{LayerNorm, Linear, merge_heads, split_heads};
use crate::tensors::{NamedTensors, TensorVisitor, join};

/// `x += out(attention(norm1 x)); x += fc2(act(fc1(norm2 x)))`.
#[derive(Module, Debug)]
pub struct ClipLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm1: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    norm2: LayerNorm,
    heads: usize,
    #[module(skip)]
    activation: Activation,
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
        let square = || Linear::new(width, width, true, device);
        Self {
            query: square(),
            key: square(),
            value: square(),
            output: square(),
            norm1: LayerNorm::new(width, layer_norm_eps, device),
            fc1: Linear::new(width, intermediate, true, device),
            fc2: Linear::new(intermediate, width, true, device),
            norm2: LayerNorm::new(width, layer_norm_eps, device),
            heads,
            activation,
        }
    }

    /// # Shapes
    /// - x and output `[b, length, width]`; mask, added to the scores, `[b, 1, length, length]`
    pub(crate) fn forward(&self, x: Tensor<3>, mask: Option<Tensor<4>>) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let heads = |projection: &Linear| split_heads(projection.forward(normed.clone()), self.heads);
        let (query, key, value) = (heads(&self.query), heads(&self.key), heads(&self.value));
        let options = AttentionModuleOptions::default();
        let attended = module::attention(query, key, value, None, mask, options);
        let x = x + self.output.forward(merge_heads(attended));
        let inner = self.activation.forward(self.fc1.forward(self.norm2.forward(x.clone())));
        x + self.fc2.forward(inner)
    }
}

impl NamedTensors for ClipLayer {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), ModelError> {
        let attention = join(prefix, "self_attn");
        self.query.visit_tensors(&join(&attention, "q_proj"), visitor)?;
        self.key.visit_tensors(&join(&attention, "k_proj"), visitor)?;
        self.value.visit_tensors(&join(&attention, "v_proj"), visitor)?;
        self.output.visit_tensors(&join(&attention, "out_proj"), visitor)?;
        self.norm1.visit_tensors(&join(prefix, "layer_norm1"), visitor)?;
        self.fc1.visit_tensors(&join(prefix, "mlp.fc1"), visitor)?;
        self.fc2.visit_tensors(&join(prefix, "mlp.fc2"), visitor)?;
        self.norm2.visit_tensors(&join(prefix, "layer_norm2"), visitor)
    }
}
