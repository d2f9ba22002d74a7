//! One decoder layer of OPT.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::OptConfig;
use crate::ModelError;
use crate::dropout::Dropout;
use crate::layers::{LayerNorm, Linear, attention, merge_heads, split_heads};
use crate::qformer::KeyValue;
use crate::tensors::{NamedTensors, TensorVisitor, join};

/// Epsilon of OPT's layer norms; no configuration names it.
pub(super) const LAYER_NORM_EPS: f64 = 1e-5;

/// `x += out(attention(norm1 x)); x += fc2(relu(fc1(norm2 x)))`.
#[derive(Module, Debug)]
pub(super) struct OptLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm1: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    norm2: LayerNorm,
    heads: usize,
}

impl OptLayer {
    pub(super) fn new(config: &OptConfig, device: &Device) -> Self {
        let width = config.width;
        let square = || Linear::new(width, width, true, device);
        Self {
            query: square(),
            key: square(),
            value: square(),
            output: square(),
            norm1: LayerNorm::new(width, LAYER_NORM_EPS, device),
            fc1: Linear::new(width, config.intermediate, true, device),
            fc2: Linear::new(config.intermediate, width, true, device),
            norm2: LayerNorm::new(width, LAYER_NORM_EPS, device),
            heads: config.heads,
        }
    }

    /// The layer's output for the positions of `x`, and the keys and values of all positions so far.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        past: Option<&KeyValue>,
        mask: Tensor<4>,
        dropout: &mut Dropout,
    ) -> (Tensor<3>, KeyValue) {
        let normed = self.norm1.forward(x.clone());
        let heads = |projection: &Linear| split_heads(projection.forward(normed.clone()), self.heads);
        let own = KeyValue { key: heads(&self.key), value: heads(&self.value) };
        let seen = past.map_or_else(|| own.clone(), |past| past.followed_by(&own));
        let (key, value) = (seen.key.clone(), seen.value.clone());
        let attended = attention(heads(&self.query), key, value, Some(mask), &mut Dropout::off());
        let x = x + dropout.forward(self.output.forward(merge_heads(attended)));
        let inner = self.fc2.forward(relu(self.fc1.forward(self.norm2.forward(x.clone()))));
        (x + dropout.forward(inner), seen)
    }
}

impl NamedTensors for OptLayer {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), ModelError> {
        let attention = join(prefix, "self_attn");
        self.query.visit_tensors(&join(&attention, "q_proj"), visitor)?;
        self.key.visit_tensors(&join(&attention, "k_proj"), visitor)?;
        self.value.visit_tensors(&join(&attention, "v_proj"), visitor)?;
        self.output.visit_tensors(&join(&attention, "out_proj"), visitor)?;
        self.norm1.visit_tensors(&join(prefix, "self_attn_layer_norm"), visitor)?;
        self.fc1.visit_tensors(&join(prefix, "fc1"), visitor)?;
        self.fc2.visit_tensors(&join(prefix, "fc2"), visitor)?;
        self.norm2.visit_tensors(&join(prefix, "final_layer_norm"), visitor)
    }
}
