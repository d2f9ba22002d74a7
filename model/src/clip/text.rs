//! CLIP's text tower.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::vision::ClipLayer;
use blip2_model_files::error::ModelError;
use blip2_tensors::device::cast::{in_f32, in_numbers};
use blip2_tensors::device::read_back::ints;
use blip2_tensors::nn::activation::Activation;
use blip2_tensors::nn::causal::causal_mask;
use blip2_tensors::nn::layers::{Embedding, LayerNorm};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// Sizes of a [`ClipText`]; the defaults are those of `CLIPTextConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Width.
    #[serde(rename = "hidden_size")]
    pub width: usize,
    /// Layers.
    #[serde(rename = "num_hidden_layers")]
    pub depth: usize,
    /// Attention heads; a divisor of `width`.
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    /// Inner width of the feed-forward parts.
    #[serde(rename = "intermediate_size")]
    pub intermediate: usize,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Rows of the position table.
    pub max_position_embeddings: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Of the feed-forward parts.
    pub hidden_act: Activation,
    /// The token whose first occurrence stands for the text.
    pub eos_token_id: u32,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            width: 512,
            depth: 12,
            heads: 8,
            intermediate: 2048,
            vocab_size: 49408,
            max_position_embeddings: 77,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
            eos_token_id: 49407,
        }
    }
}

/// The end token that old configurations name wrongly; the true one has the largest id.
const LEGACY_EOS: u32 = 2;

/// CLIP's text tower; its names are those of `transformers`, starting with `text_model`.
#[derive(Module, Debug)]
pub struct ClipText {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<ClipLayer>,
    final_norm: LayerNorm,
    #[module(skip)]
    config: ClipTextConfig,
}

impl ClipText {
    /// A model of zeros, to be loaded.
    pub fn new(config: &ClipTextConfig, device: &Device) -> Result<Self, ModelError> {
        if config.heads == 0 || !config.width.is_multiple_of(config.heads) {
            let reason = format!(
                "width {} is not a multiple of {} heads (hidden_size, num_attention_heads)",
                config.width, config.heads
            );
            return Err(ModelError::input("text tower configuration", reason));
        }
        let layer = || {
            let (width, inner) = (config.width, config.intermediate);
            ClipLayer::new(width, inner, config.heads, config.hidden_act, config.layer_norm_eps, device)
        };
        Ok(Self {
            token_embedding: Embedding::new(config.vocab_size, config.width, device),
            position_embedding: Embedding::new(config.max_position_embeddings, config.width, device),
            layers: (0..config.depth).map(|_| layer()).collect(),
            final_norm: LayerNorm::new(config.width, config.layer_norm_eps, device),
            config: config.clone(),
        })
    }

    /// Tokens of the longest text.
    pub fn max_positions(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// The vector at each text's end token, after the last norm.
    ///
    /// # Shapes
    /// - ids and mask `[b, T]` (1: a token, 0: padding); output `[b, width]`
    pub fn forward(&self, ids: Tensor<2, Int>, mask: Tensor<2, Int>) -> Result<Tensor<2>, ModelError> {
        let [batch, length] = ids.dims();
        self.check(&ids, &mask)?;
        let ends = self.end_rows(&ints(ids.clone())?, length)?;
        let mask = causal_mask(mask, length);
        let x = self.token_embedding.forward(ids) + self.position_embedding.first(length);
        let mut x = in_numbers(x, self.layers.first().map_or(DType::F32, ClipLayer::kept_in));
        for layer in &self.layers {
            x = layer.forward(x, Some(mask.clone()));
        }
        let rows = x.reshape([batch * length, self.config.width]);
        let ends = Tensor::<1, Int>::from_ints(ends.as_slice(), &rows.device());
        Ok(self.final_norm.forward(in_f32(rows.select(0, ends))))
    }

    fn check(&self, ids: &Tensor<2, Int>, mask: &Tensor<2, Int>) -> Result<(), ModelError> {
        let [_, length] = ids.dims();
        let positions = self.config.max_position_embeddings;
        if length == 0 || length > positions {
            let reason = format!("{length} tokens, the model takes 1 to {positions}");
            return Err(ModelError::input("text", reason));
        }
        if ids.dims() != mask.dims() {
            let reason = format!("ids have shape {:?}, their mask {:?}", ids.dims(), mask.dims());
            return Err(ModelError::input("text", reason));
        }
        Ok(())
    }

    /// The row of each text's end token among all rows; checks that every id is in the table.
    fn end_rows(&self, ids: &[i64], length: usize) -> Result<Vec<i32>, ModelError> {
        let vocab = self.config.vocab_size;
        if let Some(id) = ids.iter().find(|id| usize::try_from(**id).map_or(true, |id| id >= vocab)) {
            let reason = format!("token {id}, the model has {vocab}: is it the model's own tokenizer?");
            return Err(ModelError::input("text", reason));
        }
        let end = |text: &[i64]| {
            let wanted = match self.config.eos_token_id {
                LEGACY_EOS => text.iter().copied().max().unwrap_or_default(),
                eos => i64::from(eos),
            };
            // A text without an end token is represented by its first token, as in the reference.
            text.iter().position(|id| *id == wanted).unwrap_or(0)
        };
        Ok(ids.chunks(length).enumerate().map(|(row, text)| (row * length + end(text)) as i32).collect())
    }
}

impl NamedTensors for ClipText {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let embeddings = join(prefix, "embeddings");
        self.token_embedding.visit_tensors(&join(&embeddings, "token_embedding"), visitor)?;
        self.position_embedding.visit_tensors(&join(&embeddings, "position_embedding"), visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_tensors(&join(prefix, &format!("encoder.layers.{index}")), visitor)?;
        }
        self.final_norm.visit_tensors(&join(prefix, "final_layer_norm"), visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(eos_token_id: u32) -> ClipText {
        let config = ClipTextConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 8,
            vocab_size: 20,
            max_position_embeddings: 4,
            eos_token_id,
            ..ClipTextConfig::default()
        };
        ClipText::new(&config, &Device::flex()).unwrap()
    }

    #[test]
    fn the_first_end_token_stands_for_the_text() {
        let ids = [3, 19, 19, 19, 3, 7, 19, 19, 1, 2, 3, 4];
        assert_eq!(text(19).end_rows(&ids, 4).unwrap(), [1, 6, 8]);
        assert_eq!(text(LEGACY_EOS).end_rows(&ids, 4).unwrap(), [1, 6, 11]);
    }

    #[test]
    fn foreign_and_overlong_texts_are_refused() {
        let model = text(19);
        assert!(model.end_rows(&[3, 20], 2).unwrap_err().to_string().contains("token 20"));
        let ids = Tensor::<2, Int>::ones([1, 5], &Device::flex());
        let error = model.forward(ids.clone(), ids).unwrap_err().to_string();
        assert!(error.contains("5 tokens"), "{error}");
    }
}
