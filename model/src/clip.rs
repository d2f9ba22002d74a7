//! CLIP with both towers: the reference retriever, and the ranker of captions.

mod text;

pub use text::{ClipText, ClipTextConfig};

use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use serde::Deserialize;

use crate::vision::{CLIP_VISION_PREFIX, ClipVisionConfig, ClipVit};
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{WeightSource, load_beside};
use blip2_tensors::device::cast::in_f32;
use blip2_tensors::nn::layers::{LayerNorm, Linear};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// Both towers of CLIP and their projections into one space; frozen.
#[derive(Debug, Clone)]
pub struct Clip {
    vision: ClipVit,
    post_norm: LayerNorm,
    visual_projection: Linear,
    text: ClipText,
    text_projection: Linear,
    logit_scale: f32,
}

/// The fields of `config.json` outside the towers' sections.
#[derive(Deserialize)]
struct Projection {
    #[serde(default = "default_projection")]
    projection_dim: usize,
}

fn default_projection() -> usize {
    512
}

impl Clip {
    /// Loads a `CLIPModel` folder onto a plain `device`.
    ///
    /// # Errors
    /// Another model type, an unsupported setting, or weights that do not fit the configuration.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let config = FolderConfig::open(folder)?;
        if config.model_type() != "clip" {
            return Err(config.error(format!("model_type `{}`, expected `clip`", config.model_type())));
        }
        let vision: ClipVisionConfig = config.parse_section("vision_config")?;
        let text: ClipTextConfig = config.parse_section("text_config")?;
        let Projection { projection_dim } = config.parse()?;
        let source = WeightSource::open_huggingface(folder)?;
        let mut model = Self::new(&vision, &text, projection_dim, device)
            .map_err(|error| config.error(error.to_string()))?;
        model.logit_scale = source.read("logit_scale", &[])?[0].exp();
        load_beside(&mut model, "", &source, device, &["logit_scale"])?;
        Ok(model)
    }

    /// A model of zeros, to be loaded; vectors have `projection` numbers.
    ///
    /// # Errors
    /// Sizes that no model can have.
    pub fn new(
        vision: &ClipVisionConfig,
        text: &ClipTextConfig,
        projection: usize,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            vision: ClipVit::new(vision, vision.depth, device)?,
            post_norm: LayerNorm::new(vision.width, vision.layer_norm_eps, device),
            visual_projection: Linear::new(vision.width, projection, false, device),
            text: ClipText::new(text, device)?,
            text_projection: Linear::new(text.width, projection, false, device),
            logit_scale: 1.0,
        })
    }

    /// Side of the square image in pixels.
    pub fn image_size(&self) -> usize {
        self.vision.config().image_size
    }

    /// Tokens of the longest text.
    pub fn text_length(&self) -> usize {
        self.text.max_positions()
    }

    /// What cosines are multiplied with to become logits.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// Unit vectors of images.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, projection]`
    pub fn image_features(&self, pixels: Tensor<4>) -> Result<Tensor<2>, ModelError> {
        let class = self.vision.forward(pixels)?.narrow(1, 0, 1).squeeze_dim::<2>(1);
        Ok(unit(self.visual_projection.forward(self.post_norm.forward(in_f32(class)))))
    }

    /// Unit vectors of texts.
    ///
    /// # Shapes
    /// - ids and mask `[b, T]` (1: a token, 0: padding); output `[b, projection]`
    pub fn text_features(&self, ids: Tensor<2, Int>, mask: Tensor<2, Int>) -> Result<Tensor<2>, ModelError> {
        Ok(unit(self.text_projection.forward(self.text.forward(ids, mask)?)))
    }
}

fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = x.clone().square().sum_dim(1).sqrt();
    x / norm
}

impl NamedTensors for Clip {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let vision = join(prefix, CLIP_VISION_PREFIX);
        self.vision.visit_tensors(&vision, visitor)?;
        self.post_norm.visit_tensors(&join(&vision, "post_layernorm"), visitor)?;
        self.visual_projection.visit_tensors(&join(prefix, "visual_projection"), visitor)?;
        self.text.visit_tensors(&join(prefix, "text_model"), visitor)?;
        self.text_projection.visit_tensors(&join(prefix, "text_projection"), visitor)
    }
}
