//! Image encoder and Q-Former with its heads, as a folder of `Blip2ForImageTextRetrieval` holds them.

use std::path::Path;

use burn::module::Param;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::config::{SECTION, sizes};
use super::export::NOT_IN_RETRIEVAL;
use crate::objectives::contrast::ContrastModel;
use crate::qformer::QFormerConfig;
use crate::vision::ImageEncoder;
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::image_processor::ImageProcessor;
use blip2_model_files::weights::{WeightSource, load};
use blip2_tensors::device::compute::Compute;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};

/// Image encoder, Q-Former with text, and the heads that compare images with texts.
#[derive(Debug)]
pub struct Blip2Retrieval {
    encoder: ImageEncoder,
    contrast: ContrastModel,
    qformer: QFormerConfig,
    processor: ImageProcessor,
}

/// Width of the contrastive space; the default is that of `Blip2Config`.
#[derive(Deserialize)]
struct EmbedDim {
    #[serde(default = "default_embed_dim")]
    image_text_hidden_size: usize,
}

fn default_embed_dim() -> usize {
    256
}

impl Blip2Retrieval {
    /// Loads a folder of `Blip2ForImageTextRetrieval`. The captioning head and the temperature, which it does
    /// not hold, stay zeros and one: nothing here reads them.
    ///
    /// # Errors
    /// Another model, an unsupported setting, or weights that do not fit.
    pub fn open(folder: &Path, place: impl Into<Placement>) -> Result<Self, ModelError> {
        let place = place.into();
        let config = FolderConfig::open(folder)?;
        if config.model_type() != "blip-2" {
            let found = config.model_type();
            return Err(config.error(format!("model_type `{found}`, expected `blip-2`")));
        }
        // Only this class has text in its Q-Former.
        config.require(Some(SECTION), "use_qformer_text_input", &true.into())?;
        let (qformer, ln_vision_eps) = sizes(&config)?;
        let EmbedDim { image_text_hidden_size } = config.parse()?;
        let encoder = ImageEncoder::open(folder, &place)?;
        let mut contrast =
            ContrastModel::new(&qformer, image_text_hidden_size, ln_vision_eps, &place.device)?;
        let source = WeightSource::open_huggingface(folder)?;
        load(&mut InFolder(&mut contrast), "", &source, &place.device)?;
        let processor = ImageProcessor::read(folder, ImageProcessor::blip2(encoder.image_size()))?;
        Ok(Self { encoder, contrast, qformer, processor })
    }

    /// The image encoder.
    pub fn encoder(&self) -> &ImageEncoder {
        &self.encoder
    }

    /// The Q-Former with its heads.
    pub fn contrast(&self) -> &ContrastModel {
        &self.contrast
    }

    /// The Q-Former's sizes.
    pub fn qformer_config(&self) -> &QFormerConfig {
        &self.qformer
    }

    /// How images are prepared.
    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// The same model for images of another size; its position table is resized bicubically.
    ///
    /// # Errors
    /// A size that is not a multiple of the patches'.
    pub fn resized(self, side: usize) -> Result<Self, ModelError> {
        Ok(Self { encoder: self.encoder.resized(side)?, processor: self.processor.resized(side), ..self })
    }
}

/// What of the contrast task's tensors is in such a folder.
struct InFolder<'a>(&'a mut ContrastModel);

impl NamedTensors for InFolder<'_> {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.0.visit_tensors(prefix, &mut Present(visitor))
    }
}

/// Passes over what is not there.
struct Present<'a, V>(&'a mut V);

fn is_present(name: &str) -> bool {
    !NOT_IN_RETRIEVAL.iter().any(|absent| name.starts_with(absent))
}

impl<V: TensorVisitor> TensorVisitor for Present<'_, V> {
    type Error = V::Error;

    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>) -> Result<(), V::Error> {
        if is_present(name) { self.0.visit(name, tensor) } else { Ok(()) }
    }

    fn visit_bias(&mut self, name: &str, bias: &mut Param<Tensor<1>>) -> Result<(), V::Error> {
        if is_present(name) { self.0.visit_bias(name, bias) } else { Ok(()) }
    }

    fn visit_compute(&mut self, compute: &mut Compute) {
        self.0.visit_compute(compute);
    }
}
