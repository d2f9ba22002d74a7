//! What a model of the contrast task begins with: BERT's tensors, and query parts like the text parts.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

use blip2_model_files::error::ModelError;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::tensors::{TensorVisitor, set};

/// Looks for what [`FromBert`] would read.
pub(super) struct ExpectBert<'a> {
    pub(super) bert: &'a WeightSource,
    pub(super) has_head: bool,
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
pub(super) struct FromBert<'a> {
    pub(super) bert: &'a WeightSource,
    device: &'a Device,
    /// Whether BERT has its head.
    has_head: bool,
}

/// BERT's head, below which the names of the captioning head are.
const BERT_HEAD: &str = "cls.predictions.";

impl<'a> FromBert<'a> {
    pub(super) fn new(bert: &'a WeightSource, device: &'a Device) -> Self {
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
        set(tensor, TensorData::new(values, shape), self.device);
        Ok(())
    }
}

/// Values of the text feed-forward parts, by name.
#[derive(Default)]
pub(super) struct TextParts(BTreeMap<String, Vec<f32>>);

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

/// Has the query parts begin as the text parts.
pub(super) struct CopyToQueries<'a> {
    pub(super) text: TextParts,
    pub(super) device: &'a Device,
}

impl TensorVisitor for CopyToQueries<'_> {
    type Error = ModelError;

    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>) -> Result<(), ModelError> {
        if name.contains("_query.")
            && let Some(values) = self.text.0.get(&name.replace("_query.", "."))
        {
            let shape = tensor.val().dims();
            set(tensor, TensorData::new(values.clone(), shape), self.device);
        }
        Ok(())
    }
}
