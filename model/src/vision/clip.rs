//! The vision tower in the CLIP layout: a norm before the first layer, separate projections, no patch bias.

mod layer;

pub use layer::ClipLayer;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::patches::{PatchEmbedding, check_pixels, check_sizes};
use super::positions::{Alignment, resize_positions};
use blip2_model_files::error::ModelError;
use blip2_tensors::device::cast::in_numbers;
use blip2_tensors::nn::activation::Activation;
use blip2_tensors::nn::drop_path::BlockPaths;
use blip2_tensors::nn::layers::{Embedding, LayerNorm, zeros};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// The name under which `transformers` stores CLIP's vision tower.
pub(crate) const CLIP_VISION_PREFIX: &str = "vision_model";

/// Sizes of a [`ClipVit`]; the defaults are those of `CLIPVisionConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width.
    #[serde(rename = "hidden_size")]
    pub width: usize,
    /// Layers of the whole tower.
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
    /// Of the feed-forward parts.
    pub hidden_act: Activation,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            width: 768,
            depth: 12,
            heads: 12,
            intermediate: 3072,
            image_size: 224,
            patch_size: 32,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
        }
    }
}

impl ClipVisionConfig {
    /// CLIP's ViT-B/16 for 224 pixels.
    pub fn vit_b_16() -> Self {
        Self { patch_size: 16, ..Self::default() }
    }

    /// CLIP's ViT-L/14 for 224 pixels.
    pub fn vit_l_14() -> Self {
        Self {
            width: 1024,
            depth: 24,
            heads: 16,
            intermediate: 4096,
            image_size: 224,
            patch_size: 14,
            ..Self::default()
        }
    }

    /// Patches in a row of the image.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Vectors per image: one per patch and the class token.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + 1
    }
}

/// The CLIP vision transformer up to some layer, without its last norm.
///
/// LAVIS has no names for the split projections, so the names are those of `transformers`, starting with
/// `vision_model`.
#[derive(Module, Debug)]
pub struct ClipVit {
    class_embedding: Param<Tensor<1>>,
    position_embedding: Embedding,
    patch_embedding: PatchEmbedding,
    pre_norm: LayerNorm,
    layers: Vec<ClipLayer>,
    #[module(skip)]
    config: ClipVisionConfig,
}

impl ClipVit {
    /// The first `layers` layers, all zeros, to be loaded.
    pub fn new(config: &ClipVisionConfig, layers: usize, device: &Device) -> Result<Self, ModelError> {
        check_sizes(config.width, config.heads, config.image_size, config.patch_size)?;
        let layer = || {
            let (width, inner) = (config.width, config.intermediate);
            ClipLayer::new(width, inner, config.heads, config.hidden_act, config.layer_norm_eps, device)
        };
        Ok(Self {
            class_embedding: zeros([config.width], device),
            position_embedding: Embedding::new(config.tokens(), config.width, device),
            patch_embedding: PatchEmbedding::new(config.width, config.patch_size, false, device),
            pre_norm: LayerNorm::new(config.width, config.layer_norm_eps, device),
            layers: (0..layers).map(|_| layer()).collect(),
            config: config.clone(),
        })
    }

    /// The sizes of the whole tower.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// The same encoder for images of another size.
    pub fn resized(mut self, image_size: usize) -> Result<Self, ModelError> {
        let config = ClipVisionConfig { image_size, ..self.config.clone() };
        check_sizes(config.width, config.heads, image_size, config.patch_size)?;
        let weight = &self.position_embedding.weight;
        let table = resize_positions(weight.val(), self.config.grid(), config.grid(), Alignment::Corners)?;
        self.position_embedding.weight = Param::initialized(weight.id, table);
        self.config = config;
        Ok(self)
    }

    /// The residual stream after the last layer held, in the numbers that the matrices are kept in.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, tokens, width]`
    pub fn forward(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        let embedded = self.embed(pixels)?;
        Ok((0..self.layers.len()).fold(embedded, |x, layer| self.block(layer, x, &BlockPaths::kept())))
    }

    /// What enters the first layer, `[b, tokens, width]`.
    pub(super) fn embed(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        check_pixels(&pixels, self.config.image_size)?;
        let batch = pixels.dims()[0];
        let class = self.class_embedding.val().unsqueeze::<3>().expand([batch, 1, self.config.width]);
        let x = Tensor::cat(vec![class, self.patch_embedding.forward(pixels)], 1)
            + self.position_embedding.first(self.config.tokens());
        let x = self.pre_norm.forward(x);
        Ok(in_numbers(x, self.layers.first().map_or(DType::F32, ClipLayer::kept_in)))
    }

    /// Layer `index` of what enters it, `[b, tokens, width]`.
    pub(super) fn block(&self, index: usize, x: Tensor<3>, paths: &BlockPaths) -> Tensor<3> {
        self.layers[index].forward_on(x, None, paths)
    }

    /// Layers held.
    pub(super) fn layers(&self) -> usize {
        self.layers.len()
    }
}

impl NamedTensors for ClipVit {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let embeddings = join(prefix, "embeddings");
        visitor.visit(&join(&embeddings, "class_embedding"), &mut self.class_embedding)?;
        self.position_embedding.visit_tensors(&join(&embeddings, "position_embedding"), visitor)?;
        self.patch_embedding.visit_tensors(&join(&embeddings, "patch_embedding"), visitor)?;
        // The published name is misspelt.
        self.pre_norm.visit_tensors(&join(prefix, "pre_layrnorm"), visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_tensors(&join(prefix, &format!("encoder.layers.{index}")), visitor)?;
        }
        Ok(())
    }
}
