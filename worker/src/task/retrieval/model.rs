//! What the steps of the retrieval task are made of: its model, and what a slot's losses find for its images.

use blip2_dataset::loader::SlotBatch;
use blip2_model::trained_encoder::EncoderForward;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};
use burn::tensor::Tensor;

use crate::task::contrast::model::ContrastTask;
use crate::task::image_encoder::TaskEncoder;

/// The model with what its step depends on.
#[derive(Debug)]
pub(super) struct RetrievalTask {
    pub(super) encoder: TaskEncoder,
    /// What reads the features, and its steps as in pre-training.
    pub(super) contrast: ContrastTask,
}

impl NamedTensors for RetrievalTask {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.encoder.visit_tensors(prefix, visitor)?;
        self.contrast.model.visit_tensors(prefix, visitor)
    }
}

/// A slot's images behind a trained encoder.
pub(super) struct EncodedImages {
    /// What the losses are computed of, and get a gradient for.
    pub(super) leaf: Tensor<3>,
    /// What was kept of their way through the encoder.
    pub(super) pass: Option<EncoderForward>,
}

impl EncodedImages {
    /// Of features without autodiff.
    pub(super) fn new(features: &Tensor<3>, pass: Option<EncoderForward>) -> Self {
        Self { leaf: leaf(features.clone()), pass }
    }
}

/// A tensor that requires a gradient, with the values of one that has none.
pub(super) fn leaf(values: Tensor<3>) -> Tensor<3> {
    Tensor::from_inner(values).require_grad()
}

/// The images of a slot between the two halves of its backward pass.
pub(super) struct OpenImages<'a> {
    pub(super) batch: &'a SlotBatch,
    /// The gradient of the images' features that the slot's own losses gave, `[b, P, Dv]`.
    pub(super) own: Tensor<3>,
    /// That of the features of its texts' negative images, `[b, P, Dv]`.
    pub(super) negatives: Tensor<3>,
    /// What was kept of their way through the encoder.
    pub(super) pass: Option<EncoderForward>,
}
