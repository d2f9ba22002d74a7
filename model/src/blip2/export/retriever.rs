//! What is exported of the contrast task.

use crate::objectives::contrast::ContrastModel;
use crate::qformer::QFormerConfig;
use crate::vision::{EVA_PREFIX, ImageEncoder};
use blip2_model_files::image_processor::ImageProcessor;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// What the contrast task trained, and what it was trained on.
#[derive(Debug)]
pub struct Retriever<'a> {
    /// The frozen image encoder.
    pub encoder: &'a mut ImageEncoder,
    /// Queries, Q-Former and heads.
    pub contrast: &'a mut ContrastModel,
    /// The Q-Former's sizes.
    pub qformer: &'a QFormerConfig,
    /// How images are prepared.
    pub processor: &'a ImageProcessor,
}

impl NamedTensors for Retriever<'_> {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.encoder.visit_tensors(&join(prefix, EVA_PREFIX), visitor)?;
        self.contrast.visit_tensors(prefix, visitor)
    }
}
