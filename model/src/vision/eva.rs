//! The image encoder in the EVA-CLIP layout: fused query, key and value, no final norm.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Gradients, Tensor};
use serde::{Deserialize, Serialize};

use super::patches::{PatchEmbedding, check_pixels, check_sizes};
use super::positions::{Alignment, resize_positions};
use blip2_model_files::error::ModelError;
use blip2_tensors::device::cast::in_numbers;
use blip2_tensors::nn::attention::{encoder_attention, merge_heads, split_heads};
use blip2_tensors::nn::drop_path::{BlockPaths, Branch};
use blip2_tensors::nn::layers::{LayerNorm, Linear, zeros};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// The name under which LAVIS stores the image encoder.
pub const EVA_PREFIX: &str = "visual_encoder";

/// Sizes of an [`EvaVit`]; the defaults are those of `Blip2VisionConfig` (ViT-g/14).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaConfig {
    /// Width.
    #[serde(rename = "hidden_size")]
    pub width: usize,
    /// Blocks.
    #[serde(rename = "num_hidden_layers")]
    pub depth: usize,
    /// Attention heads; a divisor of `width`.
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    /// Inner width of the feed-forward parts.
    #[serde(rename = "intermediate_size")]
    pub intermediate: usize,
    /// Side of the square image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels; a divisor of `image_size`.
    pub patch_size: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
}

impl Default for EvaConfig {
    fn default() -> Self {
        Self {
            width: 1408,
            depth: 39,
            heads: 16,
            intermediate: 6144,
            image_size: 224,
            patch_size: 14,
            layer_norm_eps: 1e-6,
        }
    }
}

impl EvaConfig {
    /// Patches in a row of the image.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Vectors per image: one per patch and the class token.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + 1
    }

    /// Refuses sizes that no model can have.
    pub fn validate(&self) -> Result<(), ModelError> {
        check_sizes(self.width, self.heads, self.image_size, self.patch_size)
    }
}

/// `x += proj(attention(norm1 x)); x += fc2(gelu(fc1(norm2 x)))`.
#[derive(Module, Debug)]
struct EvaBlock {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

impl EvaBlock {
    fn new(config: &EvaConfig, device: &Device) -> Self {
        let width = config.width;
        Self {
            norm1: LayerNorm::new(width, config.layer_norm_eps, device),
            qkv: Linear::new(width, 3 * width, true, device),
            proj: Linear::new(width, width, true, device),
            norm2: LayerNorm::new(width, config.layer_norm_eps, device),
            fc1: Linear::new(width, config.intermediate, true, device),
            fc2: Linear::new(config.intermediate, width, true, device),
            heads: config.heads,
        }
    }

    fn forward(&self, x: Tensor<3>, paths: &BlockPaths) -> Tensor<3> {
        let width = x.dims()[2];
        let qkv = self.qkv.forward(self.norm1.forward(x.clone()));
        let third = |index: usize| split_heads(qkv.clone().narrow(2, index * width, width), self.heads);
        let attended = encoder_attention(third(0), third(1), third(2), None);
        let x = x + paths.scale(Branch::Attention, self.proj.forward(merge_heads(attended)));
        let inner = self.fc2.forward_gelu(self.fc1.forward(self.norm2.forward(x.clone())));
        x + paths.scale(Branch::FeedForward, inner)
    }
}

impl NamedTensors for EvaBlock {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.norm1.visit_tensors(&join(prefix, "norm1"), visitor)?;
        self.qkv.visit_tensors(&join(prefix, "attn.qkv"), visitor)?;
        self.proj.visit_tensors(&join(prefix, "attn.proj"), visitor)?;
        self.norm2.visit_tensors(&join(prefix, "norm2"), visitor)?;
        self.fc1.visit_tensors(&join(prefix, "mlp.fc1"), visitor)?;
        self.fc2.visit_tensors(&join(prefix, "mlp.fc2"), visitor)
    }
}

/// The EVA vision transformer; its names start with `visual_encoder`.
#[derive(Module, Debug)]
pub struct EvaVit {
    cls_token: Param<Tensor<3>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbedding,
    blocks: Vec<EvaBlock>,
    #[module(skip)]
    config: EvaConfig,
}

impl EvaVit {
    /// A model of zeros, to be loaded; the sizes are those that [`EvaConfig::validate`] accepts.
    pub fn new(config: &EvaConfig, device: &Device) -> Self {
        Self {
            cls_token: zeros([1, 1, config.width], device),
            pos_embed: zeros([1, config.tokens(), config.width], device),
            patch_embed: PatchEmbedding::new(config.width, config.patch_size, true, device),
            blocks: (0..config.depth).map(|_| EvaBlock::new(config, device)).collect(),
            config: config.clone(),
        }
    }

    /// The sizes.
    pub fn config(&self) -> &EvaConfig {
        &self.config
    }

    /// The same encoder for images of another size.
    pub fn resized(mut self, image_size: usize) -> Result<Self, ModelError> {
        let config = EvaConfig { image_size, ..self.config.clone() };
        config.validate()?;
        let table = self.pos_embed.val().squeeze_dim::<2>(0);
        let table = resize_positions(table, self.config.grid(), config.grid(), Alignment::Edges)?;
        self.pos_embed = Param::initialized(self.pos_embed.id, table.unsqueeze::<3>());
        self.config = config;
        Ok(self)
    }

    /// The residual stream after the last block, without a norm, in the numbers that the matrices are kept
    /// in.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, tokens, width]`
    pub fn forward(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        let embedded = self.embed(pixels)?;
        Ok((0..self.blocks.len()).fold(embedded, |x, block| self.block(block, x, &BlockPaths::kept())))
    }

    /// What enters the first block, `[b, tokens, width]`.
    pub(super) fn embed(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        check_pixels(&pixels, self.config.image_size)?;
        let batch = pixels.dims()[0];
        let class = self.cls_token.val().expand([batch, 1, self.config.width]);
        let x = Tensor::cat(vec![class, self.patch_embed.forward(pixels)], 1) + self.pos_embed.val();
        Ok(in_numbers(x, self.blocks.first().map_or(DType::F32, |block| block.qkv.kept_in())))
    }

    /// Block `index` of what enters it, `[b, tokens, width]`.
    pub(super) fn block(&self, index: usize, x: Tensor<3>, paths: &BlockPaths) -> Tensor<3> {
        self.blocks[index].forward(x, paths)
    }

    /// Sets the gradient of a block's key bias, the middle third of its fused bias, to zero: it adds the same
    /// number to all scores of a query, so that its true gradient is zero and the computed one noise.
    pub(super) fn without_key_bias(&self, index: usize, gradients: &mut Gradients) {
        let Some(bias) = &self.blocks[index].qkv.bias else { return };
        let bias = bias.val();
        let Some(gradient) = bias.grad(gradients) else { return };
        let width = self.config.width;
        let third = |index: usize| gradient.clone().narrow(0, index * width, width);
        bias.grad_replace(gradients, Tensor::cat(vec![third(0), third(1).zeros_like(), third(2)], 0));
    }
}

impl NamedTensors for EvaVit {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        visitor.visit(&join(prefix, "cls_token"), &mut self.cls_token)?;
        visitor.visit(&join(prefix, "pos_embed"), &mut self.pos_embed)?;
        self.patch_embed.visit_tensors(&join(prefix, "patch_embed.proj"), visitor)?;
        for (index, block) in self.blocks.iter_mut().enumerate() {
            block.visit_tensors(&join(prefix, &format!("blocks.{index}")), visitor)?;
        }
        Ok(())
    }
}
