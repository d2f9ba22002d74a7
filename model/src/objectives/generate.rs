//! The generate task: the Q-Former's queries, projected, are a soft prompt of the frozen language model.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::qformer::{ImageKeyValues, QFormer, QFormerConfig};
use blip2_model_files::error::ModelError;
use blip2_tensors::device::cast::in_f32;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::layers::{LayerNorm, Linear};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};
use blip2_tensors::train::tape::{Segment, Tape};

/// What the generate task trains: vision norm, queries, Q-Former without its text parts unless it reads
/// questions, projection.
#[derive(Module, Debug)]
pub struct GenerateModel {
    /// Norm of the image features.
    pub ln_vision: LayerNorm,
    /// `[1, queries, hidden]`.
    pub query_tokens: Param<Tensor<3>>,
    /// With text parts in [`GenerateModel::reading_questions`] alone.
    pub qformer: QFormer,
    /// Hidden width to the language model's.
    pub opt_proj: Linear,
}

impl GenerateModel {
    /// A model of zeros; `language_width` is the width of the language model's embeddings.
    pub fn new(
        config: &QFormerConfig,
        ln_vision_eps: f64,
        language_width: usize,
        device: &Device,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        Ok(Self {
            ln_vision: LayerNorm::new(config.image_width, ln_vision_eps, device),
            query_tokens: Param::from_tensor(Tensor::zeros([1, config.queries, config.hidden], device)),
            qformer: config.init(false, device),
            opt_proj: Linear::new(config.hidden, language_width, true, device),
        })
    }

    /// The queries' outputs, before the projection. `tape` is cut behind the inputs and behind each layer.
    ///
    /// # Shapes
    /// - image_features `[b, P, Dv]`, before `ln_vision`; output `[b, queries, hidden]`
    pub fn query_output(
        &self,
        image_features: Tensor<3>,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Tensor<3>, ModelError> {
        let batch = image_features.dims()[0];
        let image = self.image_key_values(image_features, tape)?;
        Ok(self.qformer.forward_queries(self.queries(batch), &image, dropout, tape).0)
    }

    /// What the layers see of the images; cuts `tape` behind `ln_vision`.
    pub(super) fn image_key_values(
        &self,
        image_features: Tensor<3>,
        tape: &mut Tape,
    ) -> Result<ImageKeyValues, ModelError> {
        let width = image_features.dims()[2];
        let expected = self.ln_vision.weight.val().dims()[0];
        if width != expected {
            let reason = format!("features of width {width}, the model was made for {expected}");
            return Err(ModelError::input("image features", reason));
        }
        let image_embeds = tape.cut(Segment::Inputs, self.ln_vision.forward(in_f32(image_features)));
        Ok(self.qformer.image_key_values(image_embeds))
    }

    /// The learned queries for each of `rows` images.
    pub(super) fn queries(&self, rows: usize) -> Tensor<3> {
        let [_, queries, hidden] = self.query_tokens.val().dims();
        self.query_tokens.val().expand([rows, queries, hidden])
    }

    /// How much each query attends to each position of the image ([`QFormer::image_attention`]).
    ///
    /// # Shapes
    /// - image_features `[b, P, Dv]`, before `ln_vision`; output `[b, queries, P]`
    pub fn image_attention(&self, image_features: Tensor<3>) -> Result<Option<Tensor<3>>, ModelError> {
        let queries = self.queries(image_features.dims()[0]);
        let image = self.image_key_values(image_features, &mut Tape::whole())?;
        Ok(self.qformer.image_attention(queries, &image))
    }

    /// The soft prompt.
    ///
    /// # Shapes
    /// - image_features `[b, P, Dv]`, before `ln_vision`; output `[b, queries, language width]`
    pub fn forward(
        &self,
        image_features: Tensor<3>,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Tensor<3>, ModelError> {
        Ok(self.opt_proj.forward(self.query_output(image_features, dropout, tape)?))
    }
}

impl NamedTensors for GenerateModel {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.ln_vision.visit_tensors(&join(prefix, "ln_vision"), visitor)?;
        visitor.visit(&join(prefix, "query_tokens"), &mut self.query_tokens)?;
        self.qformer.visit_tensors(&join(prefix, "Qformer"), visitor)?;
        self.opt_proj.visit_tensors(&join(prefix, "opt_proj"), visitor)
    }
}
