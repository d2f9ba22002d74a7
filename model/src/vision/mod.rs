//! Frozen image encoders: pictures to the features that the Q-Former attends to.

mod clip;
mod eva;
mod patches;
mod positions;

pub use clip::{ClipVisionConfig, ClipVit};
pub use eva::{EvaConfig, EvaVit};

use std::path::Path;

use burn::tensor::Tensor;

use crate::ModelError;
use crate::hf_config::FolderConfig;
use crate::placement::Placement;
use crate::weights::{WeightSource, load, load_beside};

/// The name under which LAVIS stores the image encoder.
pub const EVA_PREFIX: &str = "visual_encoder";

/// The name under which `transformers` stores CLIP's vision tower.
pub(crate) const CLIP_VISION_PREFIX: &str = "vision_model";

fn unknown(config: &FolderConfig, model_type: &str) -> ModelError {
    config.error(format!(
        "model_type `{model_type}` is not an image encoder this program has; it has `blip_2_vision_model`, \
         `blip-2`, `clip` and `clip_vision_model`"
    ))
}

/// What a CLIP folder holds besides the layers of the vision tower.
const CLIP_OTHERS: &[&str] =
    &["*post_layernorm.*", "text_model.*", "text_projection.*", "visual_projection.*", "logit_scale"];

/// A frozen image encoder in one of the two published layouts.
#[derive(Debug, Clone)]
pub enum ImageEncoder {
    /// Fused projections, all blocks, no final norm.
    Eva(EvaVit),
    /// CLIP's vision tower without its last layer and last norm.
    Clip(ClipVit),
}

impl ImageEncoder {
    /// Loads the encoder of a Hugging Face folder to a `place` without autodiff: the model type
    /// `blip_2_vision_model` or `blip-2` in the EVA layout, `clip` or `clip_vision_model` in CLIP's.
    ///
    /// # Errors
    /// Another model type, an unsupported setting, or weights that do not fit the configuration.
    pub fn open(folder: &Path, place: impl Into<Placement>) -> Result<Self, ModelError> {
        let place = &place.into();
        let config = FolderConfig::open(folder)?;
        match config.model_type() {
            "blip_2_vision_model" => Self::open_eva(folder, &config, None, place),
            "blip-2" => Self::open_eva(folder, &config, Some("vision_config"), place),
            "clip_vision_model" => Self::open_clip(folder, &config.parse()?, place),
            "clip" => Self::open_clip(folder, &config.parse_section("vision_config")?, place),
            other => Err(unknown(&config, other)),
        }
    }

    fn open_eva(
        folder: &Path,
        config: &FolderConfig,
        section: Option<&str>,
        place: &Placement,
    ) -> Result<Self, ModelError> {
        config.require(section, "hidden_act", &"gelu".into())?;
        config.require(section, "qkv_bias", &true.into())?;
        let sizes: EvaConfig = match section {
            Some(section) => config.parse_section(section)?,
            None => config.parse()?,
        };
        sizes.validate().map_err(|error| config.error(error.to_string()))?;
        let mut model = EvaVit::new(&sizes, &place.device);
        load(&mut model, EVA_PREFIX, &WeightSource::open_huggingface(folder)?, place)?;
        Ok(Self::Eva(model))
    }

    fn open_clip(folder: &Path, sizes: &ClipVisionConfig, place: &Placement) -> Result<Self, ModelError> {
        let last = sizes.depth.saturating_sub(1);
        let mut model = ClipVit::new(sizes, last, &place.device)?;
        let unused = format!("*encoder.layers.{last}.*");
        let others = [CLIP_OTHERS, &[unused.as_str()]].concat();
        let source = WeightSource::open_huggingface(folder)?;
        load_beside(&mut model, CLIP_VISION_PREFIX, &source, place, &others)?;
        Ok(Self::Clip(model))
    }

    /// Width of the feature vectors of the encoder in a folder; its weights are not read.
    ///
    /// # Errors
    /// A model type that is not an image encoder.
    pub fn width_of(folder: &Path) -> Result<usize, ModelError> {
        let config = FolderConfig::open(folder)?;
        Ok(match config.model_type() {
            "blip_2_vision_model" => config.parse::<EvaConfig>()?.width,
            "blip-2" => config.parse_section::<EvaConfig>("vision_config")?.width,
            "clip_vision_model" => config.parse::<ClipVisionConfig>()?.width,
            "clip" => config.parse_section::<ClipVisionConfig>("vision_config")?.width,
            other => return Err(unknown(&config, other)),
        })
    }

    /// Width of a feature vector.
    pub fn width(&self) -> usize {
        match self {
            Self::Eva(model) => model.config().width,
            Self::Clip(model) => model.config().width,
        }
    }

    /// Side of the square picture in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Eva(model) => model.config().image_size,
            Self::Clip(model) => model.config().image_size,
        }
    }

    /// Feature vectors per picture.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Eva(model) => model.config().tokens(),
            Self::Clip(model) => model.config().tokens(),
        }
    }

    /// The same encoder for pictures of another size; its position table is resized bicubically.
    pub fn resized(self, image_size: usize) -> Result<Self, ModelError> {
        Ok(match self {
            Self::Eva(model) => Self::Eva(model.resized(image_size)?),
            Self::Clip(model) => Self::Clip(model.resized(image_size)?),
        })
    }

    /// The features of normalised pictures, before any final norm.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, tokens, width]`
    pub fn forward(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        match self {
            Self::Eva(model) => model.forward(pixels),
            Self::Clip(model) => model.forward(pixels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::LayerNorm;
    use crate::tensors::{FlatLayout, NamedTensors};
    use burn::tensor::Device;

    fn clip_large() -> ClipVisionConfig {
        ClipVisionConfig {
            width: 1024,
            depth: 24,
            heads: 16,
            intermediate: 4096,
            patch_size: 14,
            ..ClipVisionConfig::default()
        }
    }

    #[test]
    fn the_published_encoders_have_the_published_sizes() {
        let device = Device::flex();
        let count = |model: &mut EvaVit| FlatLayout::of(model).unwrap().len();
        // Key biases, which the file leaves out because they are zero, are kept in the fused bias.
        let keys = 39 * 1408;
        assert_eq!(count(&mut EvaVit::new(&EvaConfig::default(), &device)), 985_894_528 + keys);
        let mut clip = ClipVit::new(&clip_large(), 23, &device).unwrap();
        assert_eq!(FlatLayout::of(&mut clip).unwrap().len(), 290_581_504);
        for (image_size, tokens) in [(224, 257), (364, 677), (490, 1226)] {
            assert_eq!(EvaConfig { image_size, ..EvaConfig::default() }.tokens(), tokens);
            assert_eq!(ClipVisionConfig { image_size, ..clip_large() }.tokens(), tokens);
        }
    }

    /// Small encoders in both layouts, at 224 pixels with patches of 14.
    fn small() -> [ImageEncoder; 2] {
        let device = Device::flex();
        let eva = EvaConfig { width: 8, depth: 1, heads: 2, intermediate: 8, ..EvaConfig::default() };
        let clip = ClipVisionConfig { width: 8, depth: 1, heads: 2, intermediate: 8, ..clip_large() };
        [
            ImageEncoder::Eva(filled(EvaVit::new(&eva, &device))),
            ImageEncoder::Clip(filled(ClipVit::new(&clip, 1, &device).unwrap())),
        ]
    }

    fn filled<M: NamedTensors>(mut model: M) -> M {
        let layout = FlatLayout::of(&mut model).unwrap();
        let flat: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.7311).sin() * 0.6).collect();
        layout.write(&mut model, &flat, &Device::flex()).unwrap();
        model
    }

    #[test]
    fn encoders_take_pictures_of_the_published_sizes() {
        let device = Device::flex();
        for encoder in small() {
            for (size, tokens) in [(224, 257), (364, 677), (490, 1226)] {
                let resized = encoder.clone().resized(size).unwrap();
                let features = resized.forward(Tensor::zeros([1, 3, size, size], &device)).unwrap();
                assert_eq!(features.dims(), [1, tokens, 8]);
                let spread = LayerNorm::new(8, 1e-6, &device).forward(features).abs().max();
                assert!(spread.into_scalar::<f32>().is_finite());
            }
            let error = encoder.resized(365).unwrap_err().to_string();
            assert!(error.contains("365") && error.contains("14"), "{error}");
        }
    }
}
