//! Weights in: safetensors files and folders, read tensor by tensor under any of their published names.

mod init;
mod names;
mod source;

pub use init::{InitialValues, initialise};
pub use names::{NameStyle, huggingface_name};
pub use source::WeightSource;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

use crate::ModelError;
use crate::tensors::{NamedTensors, TensorVisitor, set};

/// Loads every tensor of `model` (whose names start with `prefix`) from `source` onto `device`.
///
/// # Errors
/// A tensor that is missing or has another shape ends the load with its name and what was expected.
pub fn load(
    model: &mut impl NamedTensors,
    prefix: &str,
    source: &WeightSource,
    device: &Device,
) -> Result<(), ModelError> {
    struct Load<'a>(&'a WeightSource, &'a Device);
    impl TensorVisitor for Load<'_> {
        fn visit<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let shape = tensor.lazy_shape();
            let values = self.0.read(name, &shape)?;
            set(tensor, TensorData::new(values, shape), self.1);
            Ok(())
        }
    }
    model.visit_tensors(prefix, &mut Load(source, device))
}
