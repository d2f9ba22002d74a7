//! What the contrast task trains, and how it begins.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::beginning::{CopyToQueries, ExpectBert, FromBert, TextParts};
use crate::qformer::{QFormer, QFormerConfig};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{InitialValues, WeightSource, initialise};
use blip2_tensors::fused::gelu;
use blip2_tensors::nn::layers::{Embedding, LayerNorm, Linear};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join, set};

/// BERT's head over the vocabulary; its decoder is the word table.
#[derive(Module, Debug)]
pub struct CaptionHead {
    transform: Linear,
    norm: LayerNorm,
    bias: Param<Tensor<1>>,
}

impl CaptionHead {
    fn new(config: &QFormerConfig, device: &Device) -> Self {
        Self {
            transform: Linear::new(config.hidden, config.hidden, true, device),
            norm: LayerNorm::new(config.hidden, config.layer_norm_eps, device),
            bias: Param::from_tensor(Tensor::zeros([config.vocab], device)),
        }
    }

    /// `[b, T, hidden]` to logits `[b, T, vocab]`; `words` is the word table `[vocab, hidden]`.
    pub(super) fn forward(&self, hidden: Tensor<3>, words: &Embedding) -> Tensor<3> {
        let hidden = self.norm.forward(gelu(self.transform.forward(hidden)));
        words.scores(hidden, Some(self.bias.val()))
    }

    fn visit_named<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.transform.visit_tensors(&join(prefix, "transform.dense"), visitor)?;
        self.norm.visit_tensors(&join(prefix, "transform.LayerNorm"), visitor)?;
        visitor.visit(&join(prefix, "bias"), &mut self.bias)
    }
}

/// What the contrast task trains.
#[derive(Module, Debug)]
pub struct ContrastModel {
    /// Norm of the image features.
    pub ln_vision: LayerNorm,
    /// `[1, queries, hidden]`.
    pub query_tokens: Param<Tensor<3>>,
    /// With text parts.
    pub qformer: QFormer,
    pub(super) caption_head: CaptionHead,
    pub(super) vision_proj: Linear,
    pub(super) text_proj: Linear,
    pub(super) itm_head: Linear,
    /// Divisor of the similarities.
    pub temp: Param<Tensor<1>>,
}

impl ContrastModel {
    /// A model of zeros; `embed_dim` is the width of the contrastive space.
    pub fn new(
        config: &QFormerConfig,
        embed_dim: usize,
        ln_vision_eps: f64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        Ok(Self {
            ln_vision: LayerNorm::new(config.image_width, ln_vision_eps, device),
            query_tokens: Param::from_tensor(Tensor::zeros([1, config.queries, config.hidden], device)),
            qformer: config.init(true, device),
            caption_head: CaptionHead::new(config, device),
            vision_proj: Linear::new(config.hidden, embed_dim, true, device),
            text_proj: Linear::new(config.hidden, embed_dim, true, device),
            itm_head: Linear::new(config.hidden, 2, true, device),
            temp: Param::from_tensor(Tensor::ones([1], device)),
        })
    }

    /// Width of the contrastive space.
    pub fn embed_dim(&self) -> usize {
        self.vision_proj.weight.lazy_shape()[0]
    }

    /// Initial values: random, then BERT's where `bert` is given; query parts start as the text parts'.
    ///
    /// A word table with fewer rows than the model's fills the first rows; the position table may be longer.
    pub fn initialise(
        &mut self,
        temperature: f64,
        values: &mut impl InitialValues,
        bert: Option<&WeightSource>,
        device: &Device,
    ) -> Result<(), ModelError> {
        initialise(self, "", values, device)?;
        set(&mut self.temp, burn::tensor::TensorData::new(vec![temperature as f32], [1]), device);
        if let Some(bert) = bert {
            self.visit_tensors("", &mut FromBert::new(bert, device))?;
        }
        let mut text = TextParts::default();
        self.visit_tensors("", &mut text)?;
        self.visit_tensors("", &mut CopyToQueries { text, device })
    }

    /// Requires that [`ContrastModel::initialise`] would find what it takes from `bert`; no values are read.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn check_beginning(&mut self, bert: &WeightSource) -> Result<(), ModelError> {
        let has_head = bert.contains("cls.predictions.transform.dense.weight");
        self.visit_tensors("", &mut ExpectBert { bert, has_head })
    }
}

impl NamedTensors for ContrastModel {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.ln_vision.visit_tensors(&join(prefix, "ln_vision"), visitor)?;
        visitor.visit(&join(prefix, "query_tokens"), &mut self.query_tokens)?;
        self.qformer.visit_tensors(&join(prefix, "Qformer"), visitor)?;
        self.caption_head.visit_named(&join(prefix, "Qformer.cls.predictions"), visitor)?;
        self.vision_proj.visit_tensors(&join(prefix, "vision_proj"), visitor)?;
        self.text_proj.visit_tensors(&join(prefix, "text_proj"), visitor)?;
        self.itm_head.visit_tensors(&join(prefix, "itm_head"), visitor)?;
        visitor.visit(&join(prefix, "temp"), &mut self.temp)
    }
}
