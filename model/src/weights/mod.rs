//! Weights in: safetensors files and folders, read tensor by tensor under any of their published names.

mod init;
mod names;
mod source;

pub use init::{InitialValues, initialise};
pub use names::{NameStyle, huggingface_name};
pub use source::WeightSource;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

use crate::ModelError;
use crate::placement::Placement;
use crate::tensors::{NamedTensors, TensorVisitor, set_as};

/// Loads every tensor of `model` (whose names start with `prefix`) from `source` to `place`, which may be a device alone.
///
/// # Errors
/// A tensor that is missing or has another shape ends the load with its name and what was expected.
pub fn load(
    model: &mut impl NamedTensors,
    prefix: &str,
    source: &WeightSource,
    place: impl Into<Placement>,
) -> Result<(), ModelError> {
    struct Load<'a>(&'a WeightSource, Placement);
    impl TensorVisitor for Load<'_> {
        fn visit<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let shape = tensor.lazy_shape();
            let values = self.0.read(name, &shape)?;
            set_as(tensor, TensorData::new(values, shape), &self.1.device, self.1.dtype(D));
            Ok(())
        }
    }
    model.visit_tensors(prefix, &mut Load(source, place.into()))
}
