//! Image encoders: images to the features that the Q-Former attends to.

mod clip;
mod eva;
mod patches;
mod positions;
mod source;

pub(crate) use clip::CLIP_VISION_PREFIX;
pub use clip::{ClipLayer, ClipVisionConfig, ClipVit};
pub use eva::{EVA_PREFIX, EvaConfig, EvaVit};
pub use positions::{expect_with_positions, read_with_positions, with_positions};
pub use source::EncoderSizes;

use std::path::Path;

use burn::tensor::{Device, Gradients, Tensor};

use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{Fit, check_beside, load_beside, randomise};
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::drop_path::BlockPaths;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};

/// An image encoder in one of the two published layouts.
#[derive(Debug, Clone)]
pub enum ImageEncoder {
    /// Fused projections, all blocks, no final norm.
    Eva(EvaVit),
    /// CLIP's vision tower without its last layer and last norm.
    Clip(ClipVit),
}

impl ImageEncoder {
    /// Loads an encoder to a `place` without autodiff: that of a Hugging Face folder (the model type
    /// `blip_2_vision_model`, `blip-2` or `instructblip` in the EVA layout, `clip` or `clip_vision_model` in
    /// CLIP's), or LAVIS's file of one alone, `eva_vit_g.pth` or `clip_vit_L.pth`, whose last block is not
    /// used.
    ///
    /// # Errors
    /// Another model type, an unsupported setting, or weights that do not fit the configuration.
    pub fn open(path: &Path, place: impl Into<Placement>) -> Result<Self, ModelError> {
        let place = place.into();
        let source = source::open(path)?;
        let mut encoder = Self::zeros(&source.sizes, &place)?;
        load_beside(&mut encoder, source.prefix(), &source.weights, place, &source.others())?;
        Ok(encoder)
    }

    /// An encoder of these sizes whose weights mean nothing, for measurements.
    ///
    /// # Errors
    /// Sizes that no model can have.
    pub fn random(sizes: &EncoderSizes, place: &Placement) -> Result<Self, ModelError> {
        let mut encoder = Self::zeros(sizes, place)?;
        randomise(&mut encoder, place)?;
        Ok(encoder)
    }

    /// An encoder of zeros, whose tensors are made when they are first used.
    ///
    /// # Errors
    /// Sizes that no model can have.
    pub fn zeros(sizes: &EncoderSizes, place: &Placement) -> Result<Self, ModelError> {
        Ok(match sizes {
            EncoderSizes::Eva(sizes) => Self::Eva(EvaVit::new(sizes, &place.device)),
            EncoderSizes::Clip(sizes) => {
                Self::Clip(ClipVit::new(sizes, sizes.depth.saturating_sub(1), &place.device)?)
            }
        })
    }

    /// The sizes of the encoder in a folder or file; its weights are not read.
    ///
    /// # Errors
    /// What is not an image encoder.
    pub fn sizes_of(path: &Path) -> Result<EncoderSizes, ModelError> {
        source::sizes(path)
    }

    /// Width of the feature vectors of the encoder in a folder or file; its weights are not read.
    ///
    /// # Errors
    /// What is not an image encoder.
    pub fn width_of(path: &Path) -> Result<usize, ModelError> {
        Ok(source::sizes(path)?.width())
    }

    /// Requires that [`ImageEncoder::open`] would find every tensor in its shape; no values are read.
    ///
    /// # Errors
    /// As [`ImageEncoder::open`].
    pub fn check(path: &Path) -> Result<Fit, ModelError> {
        let source = source::open(path)?;
        let mut encoder = Self::zeros(&source.sizes, &Placement::from(&Device::flex()))?;
        check_beside(&mut encoder, source.prefix(), &source.weights, &source.others())
    }

    /// Width of a feature vector.
    pub fn width(&self) -> usize {
        match self {
            Self::Eva(model) => model.config().width,
            Self::Clip(model) => model.config().width,
        }
    }

    /// Side of the square image in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Eva(model) => model.config().image_size,
            Self::Clip(model) => model.config().image_size,
        }
    }

    /// Feature vectors per image.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Eva(model) => model.config().tokens(),
            Self::Clip(model) => model.config().tokens(),
        }
    }

    /// The same encoder for images of another size; its position table is resized bicubically.
    pub fn resized(self, image_size: usize) -> Result<Self, ModelError> {
        Ok(match self {
            Self::Eva(model) => Self::Eva(model.resized(image_size)?),
            Self::Clip(model) => Self::Clip(model.resized(image_size)?),
        })
    }

    /// The features of normalised images, before any final norm, in the numbers that the matrices are kept
    /// in.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, tokens, width]`
    pub fn forward(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        match self {
            Self::Eva(model) => model.forward(pixels),
            Self::Clip(model) => model.forward(pixels),
        }
    }

    /// What enters the first block, `[b, tokens, width]`.
    pub(crate) fn embed(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        match self {
            Self::Eva(model) => model.embed(pixels),
            Self::Clip(model) => model.embed(pixels),
        }
    }

    /// Block `index` of what enters it.
    pub(crate) fn block(&self, index: usize, x: Tensor<3>, paths: &BlockPaths) -> Tensor<3> {
        match self {
            Self::Eva(model) => model.block(index, x, paths),
            Self::Clip(model) => model.block(index, x, paths),
        }
    }

    /// Blocks that are used.
    pub fn depth(&self) -> usize {
        match self {
            Self::Eva(model) => model.config().depth,
            Self::Clip(model) => model.layers(),
        }
    }

    /// Takes the noise out of block `index`'s gradients, where a key bias is part of a fused one.
    pub(crate) fn without_key_bias(&self, index: usize, gradients: &mut Gradients) {
        if let Self::Eva(model) = self {
            model.without_key_bias(index, gradients);
        }
    }
}

impl NamedTensors for ImageEncoder {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        match self {
            Self::Eva(encoder) => encoder.visit_tensors(prefix, visitor),
            Self::Clip(encoder) => encoder.visit_tensors(prefix, visitor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filled::filled;
    use blip2_tensors::nn::layers::LayerNorm;

    #[test]
    fn images_of_the_published_sizes_have_the_published_number_of_tokens() {
        for (image_size, tokens) in [(224, 257), (364, 677), (490, 1226)] {
            assert_eq!(EvaConfig { image_size, ..EvaConfig::default() }.tokens(), tokens);
            assert_eq!(ClipVisionConfig { image_size, ..ClipVisionConfig::vit_l_14() }.tokens(), tokens);
        }
    }

    /// Small encoders in both layouts, at 224 pixels with patches of 14.
    fn small() -> [ImageEncoder; 2] {
        let device = Device::flex();
        let eva = EvaConfig { width: 8, depth: 1, heads: 2, intermediate: 8, ..EvaConfig::default() };
        let clip = ClipVisionConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 8,
            ..ClipVisionConfig::vit_l_14()
        };
        [
            ImageEncoder::Eva(filled(EvaVit::new(&eva, &device))),
            ImageEncoder::Clip(filled(ClipVit::new(&clip, 1, &device).unwrap())),
        ]
    }

    #[test]
    fn encoders_take_images_of_the_published_sizes() {
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
