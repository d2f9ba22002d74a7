//! BLIP's filter: whether a text belongs to an image (`BlipForImageTextRetrieval`).

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::BlipConfig;
use super::by_image::RowsByImage;
use super::open::open;
use super::text::BlipText;
use super::vision::BlipVision;
use crate::qformer::key_mask;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::attention::KeyValue;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::layers::Linear;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// The matching head's classes: no match, match.
const CLASSES: usize = 2;

/// Matching and similarity of images and texts; frozen.
#[derive(Module, Debug)]
pub struct BlipRetrieval {
    vision: BlipVision,
    text: BlipText,
    vision_proj: Linear,
    text_proj: Linear,
    itm_head: Linear,
    #[module(skip)]
    config: BlipConfig,
}

/// What texts are matched with in images; see [`BlipRetrieval::look`].
#[derive(Debug, Clone)]
pub struct MatchedImages {
    layers: Vec<KeyValue>,
    count: usize,
}

impl BlipRetrieval {
    /// A model of zeros, to be loaded.
    pub(super) fn new(config: &BlipConfig, device: &Device) -> Self {
        let width = config.text.hidden;
        Self {
            vision: BlipVision::new(&config.vision, device),
            text: BlipText::new(&config.text, device),
            vision_proj: Linear::new(config.vision.width, config.projection, true, device),
            text_proj: Linear::new(width, config.projection, true, device),
            itm_head: Linear::new(width, CLASSES, true, device),
            config: config.clone(),
        }
    }

    /// Loads a `BlipForImageTextRetrieval` folder onto a plain `device`.
    ///
    /// # Errors
    /// Another model, an unsupported setting, or weights that do not fit the configuration.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        open(folder, device, Self::new)
    }

    /// Sizes and special tokens.
    pub fn config(&self) -> &BlipConfig {
        &self.config
    }

    /// The features that texts are matched with.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, tokens, width]`
    pub fn image_features(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        self.vision.forward(pixels)
    }

    /// Logits of "no match" and "match" of each image with its text. The reference trains and filters with
    /// `[ENC]` in the place of a text's first token, which is the caller's to put there.
    ///
    /// # Shapes
    /// - features as of [`BlipRetrieval::image_features`], `[b, tokens, width]`; ids and mask (1: a token, 0:
    ///   padding) `[b, T]`; output `[b, 2]`
    pub fn match_logits(
        &self,
        features: &Tensor<3>,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
    ) -> Result<Tensor<2>, ModelError> {
        if ids.dims()[0] != features.dims()[0] {
            let (ids, features) = (ids.dims(), features.dims());
            return Err(ModelError::input("text", format!("ids {ids:?} for features {features:?}")));
        }
        let images: Vec<usize> = (0..features.dims()[0]).collect();
        self.match_logits_of(&self.look(features), &images, ids, mask)
    }

    /// What texts about these images attend to, computed once for all of them.
    ///
    /// # Shapes
    /// - features as of [`BlipRetrieval::image_features`]
    pub fn look(&self, features: &Tensor<3>) -> MatchedImages {
        MatchedImages { layers: self.text.image_key_values(features), count: features.dims()[0] }
    }

    /// [`BlipRetrieval::match_logits`], where text `i` is matched with image `images[i]` of `seen`.
    ///
    /// # Shapes
    /// - ids and mask (1: a token, 0: padding) `[b, T]`; output `[b, 2]`
    pub fn match_logits_of(
        &self,
        seen: &MatchedImages,
        images: &[usize],
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
    ) -> Result<Tensor<2>, ModelError> {
        if ids.dims()[0] != images.len() || images.iter().any(|image| *image >= seen.count) {
            let reason = format!("ids {:?} for {images:?} of {} pictures", ids.dims(), seen.count);
            return Err(ModelError::input("text", reason));
        }
        let by_image = RowsByImage::new(images, seen.count, &ids.device());
        let image = Some((seen.layers.as_slice(), &by_image));
        Ok(self.itm_head.forward(self.first_vector(ids, mask, image)?))
    }

    /// Unit vectors of images; their products with those of texts are cosines.
    ///
    /// # Shapes
    /// - features as of [`BlipRetrieval::image_features`]; output `[b, projection]`
    pub fn image_vectors(&self, features: &Tensor<3>) -> Tensor<2> {
        unit(self.vision_proj.forward(features.clone().narrow(1, 0, 1).squeeze_dim::<2>(1)))
    }

    /// Unit vectors of texts, which see no image.
    ///
    /// # Shapes
    /// - ids and mask (1: a token, 0: padding) `[b, T]`; output `[b, projection]`
    pub fn text_vectors(&self, ids: Tensor<2, Int>, mask: Tensor<2, Int>) -> Result<Tensor<2>, ModelError> {
        Ok(unit(self.text_proj.forward(self.first_vector(ids, mask, None)?)))
    }

    /// The output at each text's first token, `[b, hidden]`.
    fn first_vector(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
        image: Option<(&[KeyValue], &RowsByImage)>,
    ) -> Result<Tensor<2>, ModelError> {
        if ids.dims() != mask.dims() {
            let reason = format!("ids have shape {:?}, their mask {:?}", ids.dims(), mask.dims());
            return Err(ModelError::input("text", reason));
        }
        let hidden = self.text.forward(ids, Some(key_mask(mask)), &mut KeyValueCache::default(), image)?;
        Ok(hidden.narrow(1, 0, 1).squeeze_dim::<2>(1))
    }
}

/// Smallest norm that is divided by, as in the reference.
const SMALLEST_NORM: f64 = 1e-12;

fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = x.clone().square().sum_dim(1).sqrt().clamp_min(SMALLEST_NORM);
    x / norm
}

impl NamedTensors for BlipRetrieval {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.vision.visit_tensors(prefix, visitor)?;
        self.text.visit_tensors(&join(prefix, "text_encoder"), visitor)?;
        self.vision_proj.visit_tensors(&join(prefix, "vision_proj"), visitor)?;
        self.text_proj.visit_tensors(&join(prefix, "text_proj"), visitor)?;
        self.itm_head.visit_tensors(&join(prefix, "itm_head"), visitor)
    }
}
