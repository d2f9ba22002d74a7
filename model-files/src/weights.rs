//! Weights in: files and folders of any format, read tensor by tensor under any of their published names.

mod init;
mod names;
mod random;
mod source;
mod tables;
#[cfg(test)]
mod tests;
mod wrapping;

pub use init::{ADAPTER_DOWN, ADAPTER_UP, InitialValues, initialise, is_of_adapter};
pub use names::{LavisClip, NameStyle, huggingface_name, instructblip_name, lavis_clip, lavis_name};
pub use random::randomise;
pub use source::{StoredTensor, WeightSource};

use burn::module::Param;
use burn::tensor::{DType, Tensor, TensorData};

use crate::error::ModelError;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::narrow::NarrowMatrix;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, set_as};
use blip2_tensors::train::flat::FlatLayout;

/// A tensor with more than this part of all elements is large.
const LARGE_PART: usize = 20;

/// Loads every tensor of `model` (whose names start with `prefix`) from `source` to `place`, which may be a
/// device alone.
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
    }
    impl Load<'_> {
        fn is_now(&self, shape: &[usize]) -> bool {
            (shape.iter().product::<usize>() > self.small) == self.large_now
        }

        fn read<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
            dtype: DType,
        ) -> Result<(), ModelError> {
            let shape = tensor.lazy_shape();
            if !self.is_now(&shape) {
                return Ok(());
            }
            let values = self.source.read(name, &shape)?;
            set_as(tensor, TensorData::new(values, shape), &self.place.device, dtype);
            Ok(())
        }
    }
    impl TensorVisitor for Load<'_> {
        type Error = ModelError;

        fn visit<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            self.read(name, tensor, self.place.dtype(D))
        }

        fn visit_bias(&mut self, name: &str, bias: &mut Param<Tensor<1>>) -> Result<(), ModelError> {
            self.read(name, bias, self.place.matrices.into())
        }

        fn visit_matrix(
            &mut self,
            name: &str,
            matrix: &mut Param<Tensor<2>>,
            narrow: &mut Option<NarrowMatrix>,
        ) -> Result<(), ModelError> {
            let Some(dtype) = self.place.narrow else { return self.visit(name, matrix) };
            let shape = matrix.lazy_shape();
            if self.is_now(&shape) {
                let values = self.source.read(name, &shape)?;
                *narrow = Some(NarrowMatrix::new(&values, shape[1], dtype));
            }
            Ok(())
        }
    }
    // Every shape is looked at before the first is allocated.
    check_beside(model, prefix, source, others)?;
    let place = place.into();
    if !place.reads {
        return Ok(());
    }
    let small = FlatLayout::of(model)?.len() / LARGE_PART;
    let mut load = Load { source, place, small, large_now: true };
    // The large ones while there is room: some files give a tensor only whole, beside its numbers here.
    model.visit_tensors(prefix, &mut load)?;
    load.large_now = false;
    model.visit_tensors(prefix, &mut load)
}

/// What of a model's tensors is in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// Tensors.
    pub tensors: usize,
    /// Their elements.
    pub parameters: usize,
}

/// Requires that [`load_beside`] would find every tensor of `model` in its shape, and none that is left over;
/// no values are read.
///
/// # Errors
/// As [`load`].
pub fn check_beside(
    model: &mut impl NamedTensors,
    prefix: &str,
    source: &WeightSource,
    others: &[&str],
) -> Result<Fit, ModelError> {
    struct Check<'a> {
        source: &'a WeightSource,
        names: Vec<String>,
        parameters: usize,
    }
    impl TensorVisitor for Check<'_> {
        type Error = ModelError;

        fn visit<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let shape = tensor.lazy_shape();
            self.source.expect(name, &shape)?;
            self.names.push(name.to_string());
            self.parameters += shape.iter().product::<usize>();
            Ok(())
        }
    }
    let mut check = Check { source, names: Vec::new(), parameters: 0 };
    model.visit_tensors(prefix, &mut check)?;
    source.check_unused(&check.names, others)?;
    Ok(Fit { tensors: check.names.len(), parameters: check.parameters })
}
