//! The contrast task: contrastive, matching and captioning losses of one slot of the global batch.
//!
//! A step goes in two halves, with an exchange between them that this crate does not see:
//!
//! 1. [`ContrastModel::features`] per slot gives the slot's contrastive features and keeps its graph;
//! 2. the features, token ids and masks of all slots are gathered as values into [`GlobalBatch`], from which
//!    [`GlobalBatch::contrast`] computes the global contrastive loss, its gradient and the hard negatives;
//! 3. [`ContrastModel::slot_loss`] per slot builds the objective whose gradient, summed over slots, is the
//!    gradient of the global-batch loss.
//!
//! Where the image encoder is trained too, the features are leaves: an image's gradient is that of its own slot
//! and that of the rows whose negative it is, which [`negative_gradients`] cuts apart where they are computed
//! and [`add_negatives`] adds up where the image is.

mod contrastive;
mod forward;
mod global;
mod home;

pub use contrastive::{Contrast, GradientMode, Side};
pub use forward::{SlotBatch, SlotContext, SlotForward, SlotLoss};
pub use global::GlobalBatch;
pub use home::{NegativeGradient, add_negatives, negative_gradients};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::qformer::{QFormer, QFormerConfig};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{InitialValues, WeightSource, initialise};
use blip2_tensors::device::read_back::floats;
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
    fn forward(&self, hidden: Tensor<3>, words: &Embedding) -> Tensor<3> {
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
    caption_head: CaptionHead,
    vision_proj: Linear,
    text_proj: Linear,
    itm_head: Linear,
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

/// Looks for what [`FromBert`] would read.
struct ExpectBert<'a> {
    bert: &'a WeightSource,
    has_head: bool,
}

impl TensorVisitor for ExpectBert<'_> {
    type Error = ModelError;

    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>) -> Result<(), ModelError> {
        let Some(bert_name) = name_in_bert(name, self.has_head) else { return Ok(()) };
        let shape = tensor.lazy_shape();
        match self.bert.shape(bert_name) {
            Some(stored) if is_table(bert_name) && stored.get(1..) == shape.get(1..) => Ok(()),
            _ => self.bert.expect(bert_name, &shape),
        }
    }
}

/// The name of a tensor of the Q-Former in BERT's files, if it begins with BERT's.
fn name_in_bert(name: &str, has_head: bool) -> Option<&str> {
    let name = name.strip_prefix("Qformer.")?;
    let own = name.contains("_query") || name.contains("crossattention");
    (!own && (has_head || !name.starts_with(BERT_HEAD))).then_some(name)
}

/// Whether BERT's may have another number of rows.
fn is_table(name: &str) -> bool {
    name.contains("_embeddings.") || name == "cls.predictions.bias"
}

/// Overwrites what BERT has: names below `Qformer.`, except the `_query` parts and cross-attention. A BERT
/// without its head leaves the captioning head as it is.
struct FromBert<'a> {
    bert: &'a WeightSource,
    device: &'a Device,
    /// Whether BERT has its head.
    has_head: bool,
}

/// BERT's head, below which the names of the captioning head are.
const BERT_HEAD: &str = "cls.predictions.";

impl<'a> FromBert<'a> {
    fn new(bert: &'a WeightSource, device: &'a Device) -> Self {
        let has_head = bert.contains("cls.predictions.transform.dense.weight");
        if !has_head {
            tracing::warn!(from = %bert.origin().display(), "this BERT has no head: the captioning head begins anew");
        }
        Self { bert, device, has_head }
    }
}

impl TensorVisitor for FromBert<'_> {
    type Error = ModelError;

    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>) -> Result<(), ModelError> {
        let Some(bert_name) = name_in_bert(name, self.has_head) else { return Ok(()) };
        let shape = tensor.val().dims();
        let stored = self.bert.shape(bert_name).map(<[usize]>::to_vec);
        let values = match stored {
            Some(stored) if is_table(bert_name) && stored != shape && stored[1..] == shape[1..] => {
                let mut values = floats(tensor.val().inner())?;
                let rows = self.bert.read(bert_name, &stored)?;
                let common = rows.len().min(values.len());
                values[..common].copy_from_slice(&rows[..common]);
                values
            }
            _ => self.bert.read(bert_name, &shape)?,
        };
        set(tensor, burn::tensor::TensorData::new(values, shape), self.device);
        Ok(())
    }
}

/// Values of the text feed-forward parts, by name.
#[derive(Default)]
struct TextParts(std::collections::BTreeMap<String, Vec<f32>>);

impl TensorVisitor for TextParts {
    type Error = ModelError;

    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>) -> Result<(), ModelError> {
        let is_text_part = [".intermediate.dense.", ".output.dense.", ".output.LayerNorm."]
            .iter()
            .any(|part| name.contains(part) && !name.contains("attention.output"));
        if is_text_part {
            self.0.insert(name.to_string(), floats(tensor.val().inner())?);
        }
        Ok(())
    }
}

struct CopyToQueries<'a> {
    text: TextParts,
    device: &'a Device,
}

impl TensorVisitor for CopyToQueries<'_> {
    type Error = ModelError;

    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>) -> Result<(), ModelError> {
        if name.contains("_query.")
            && let Some(values) = self.text.0.get(&name.replace("_query.", "."))
        {
            let shape = tensor.val().dims();
            set(tensor, burn::tensor::TensorData::new(values.clone(), shape), self.device);
        }
        Ok(())
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
