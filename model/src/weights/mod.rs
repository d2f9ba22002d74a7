//! Weights in: safetensors, PyTorch and GGUF files and folders, read tensor by tensor under any of their
//! published names.

mod container;
mod encoding;
mod folder;
mod gguf;
mod init;
mod names;
mod pairs;
mod pytorch;
mod safetensors;
mod sentencepiece;
mod source;
mod tables;
#[cfg(test)]
mod tests;

pub use gguf::is_gguf;
pub(crate) use gguf::{config as gguf_config, tokenizer as gguf_tokenizer};
pub use init::{InitialValues, initialise};
pub use names::{NameStyle, huggingface_name, lavis_name};
pub(crate) use sentencepiece::{FILE as SENTENCEPIECE_FILE, tokenizer as sentencepiece_tokenizer};
pub use source::WeightSource;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

use crate::ModelError;
use crate::placement::Placement;
use crate::tensors::{FlatLayout, NamedTensors, TensorVisitor, set_as};

/// A tensor with more than this part of all elements is large.
const LARGE_PART: usize = 20;

/// Loads every tensor of `model` (whose names start with `prefix`) from `source` to `place`, which may be a device alone.
///
/// # Errors
/// A tensor that is missing or has another shape ends the load with its name and what was expected; so do
/// tensors in the files that belong to these parts of the model, or to none, and are not used.
pub fn load(
    model: &mut impl NamedTensors,
    prefix: &str,
    source: &WeightSource,
    place: impl Into<Placement>,
) -> Result<(), ModelError> {
    load_beside(model, prefix, source, place, &[])
}

/// As [`load`], from files that also hold other tensors, whose names fit the patterns `others`; in these `*`
/// stands for any text.
///
/// # Errors
/// As [`load`].
pub fn load_beside(
    model: &mut impl NamedTensors,
    prefix: &str,
    source: &WeightSource,
    place: impl Into<Placement>,
    others: &[&str],
) -> Result<(), ModelError> {
    struct Load<'a> {
        source: &'a WeightSource,
        place: Placement,
        /// Tensors of more elements are large.
        small: usize,
        /// Whether the large ones are loaded now.
        large_now: bool,
        names: Vec<String>,
    }
    impl TensorVisitor for Load<'_> {
        fn visit<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let shape = tensor.lazy_shape();
            let is_large = shape.iter().product::<usize>() > self.small;
            if is_large != self.large_now {
                return Ok(());
            }
            let values = self.source.read(name, &shape)?;
            set_as(tensor, TensorData::new(values, shape), &self.place.device, self.place.dtype(D));
            self.names.push(name.to_string());
            Ok(())
        }
    }
    let small = FlatLayout::of(model)?.len() / LARGE_PART;
    let mut load = Load { source, place: place.into(), small, large_now: true, names: Vec::new() };
    // The large ones while there is room: some files give a tensor only whole, beside its numbers here.
    model.visit_tensors(prefix, &mut load)?;
    load.large_now = false;
    model.visit_tensors(prefix, &mut load)?;
    source.check_unused(&load.names, others)
}
