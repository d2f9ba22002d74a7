//! Weights in: safetensors, PyTorch and GGUF files and folders, read tensor by tensor under any of their
//! published names.

mod container;
mod encoding;
mod folder;
mod gguf;
mod init;
mod names;
mod pytorch;
mod safetensors;
mod source;
mod tables;
#[cfg(test)]
mod tests;

pub use gguf::is_gguf;
pub(crate) use gguf::{config as gguf_config, tokenizer as gguf_tokenizer};
pub use init::{InitialValues, initialise};
pub use names::{NameStyle, huggingface_name, lavis_name};
pub use source::WeightSource;

use burn::module::Param;
use burn::tensor::Tensor;

use crate::ModelError;
use crate::placement::Placement;
use crate::tensors::{NamedTensors, TensorVisitor, set_as};

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
    struct Load<'a>(&'a WeightSource, Placement, Vec<String>);
    impl TensorVisitor for Load<'_> {
        fn visit<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let shape = tensor.lazy_shape();
            set_as(tensor, self.0.data(name, &shape)?, &self.1.device, self.1.dtype(D));
            self.2.push(name.to_string());
            Ok(())
        }
    }
    let mut load = Load(source, place.into(), Vec::new());
    model.visit_tensors(prefix, &mut load)?;
    source.check_unused(&load.2, others)
}
