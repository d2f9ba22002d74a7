//! Every tensor of a model under its published name.
//!
//! A module lists its tensors once, in [`NamedTensors::visit_tensors`]; loading, saving, random
//! initialisation, the flat layout of the optimizer and the collection of gradients are visitors. Names are
//! those of the reference implementation (`encoder.layer.0.attention.self.query.weight`); what reads and
//! writes files knows the other spellings.

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::device::compute::Compute;
use crate::error::TensorError;
use crate::nn::adapter::Adapter;
use crate::nn::narrow::NarrowMatrix;

/// Something done to each tensor of a model.
pub trait TensorVisitor {
    /// What ends a visit early.
    type Error: From<TensorError>;

    /// Called once for each tensor, always in the same order.
    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>)
    -> Result<(), Self::Error>;

    /// Called in the place of [`TensorVisitor::visit`] for what a linear map adds to its product.
    fn visit_bias(&mut self, name: &str, bias: &mut Param<Tensor<1>>) -> Result<(), Self::Error> {
        self.visit(name, bias)
    }

    /// Called in the place of [`TensorVisitor::visit`] for a matrix that may be kept in fewer bits. Then its
    /// tensor has no values, and by default that is an error: what reads or changes values needs float32 or
    /// bf16.
    fn visit_matrix(
        &mut self,
        name: &str,
        matrix: &mut Param<Tensor<2>>,
        narrow: &mut Option<NarrowMatrix>,
    ) -> Result<(), Self::Error> {
        match narrow {
            Some(_) => {
                let reason = "it is kept in fewer bits, to be read alone: open the model in f32";
                Err(TensorError::input(name, reason).into())
            }
            None => self.visit(name, matrix),
        }
    }

    /// Called for each tensor that is a factor of products, with the numbers these are computed in.
    fn visit_compute(&mut self, _: &mut Compute) {}

    /// Called for each linear map before its tensors, with its name, its shape `[out, in]` and the place of
    /// what adapts it. Adapters are no tensors of the model that they adapt.
    fn visit_map(&mut self, _name: &str, _shape: [usize; 2], _adapter: &mut Option<Adapter>) {}
}

/// A module that can list its tensors.
pub trait NamedTensors {
    /// Visits every tensor; `prefix` is the module's own name, without a trailing dot.
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error>;
}

/// Joins a module's name and that of a part.
pub fn join(prefix: &str, part: &str) -> String {
    if prefix.is_empty() { part.to_string() } else { format!("{prefix}.{part}") }
}

/// Replaces a parameter's tensor, keeping its identity.
pub fn set<const D: usize>(param: &mut Param<Tensor<D>>, data: TensorData, device: &Device) {
    set_as(param, data, device, DType::F32);
}

/// As [`set`], in numbers of type `dtype`; the values are converted before they go to the device.
pub fn set_as<const D: usize>(param: &mut Param<Tensor<D>>, data: TensorData, device: &Device, dtype: DType) {
    // Numbers that are right already are not copied.
    let tensor = match data.dtype() == dtype {
        true => Tensor::from_data(data, device),
        false => Tensor::from_data(data, (device, dtype)),
    };
    let tensor = if device.is_autodiff() { tensor.require_grad() } else { tensor };
    *param = Param::initialized(param.id, tensor);
}

/// Has all of a model's linear maps and attentions compute their products in `compute`; a new model does so
/// in float32.
///
/// # Errors
/// None that a model of this crate makes.
pub fn compute_in(model: &mut impl NamedTensors, compute: Compute) -> Result<(), TensorError> {
    struct Set(Compute);
    impl TensorVisitor for Set {
        type Error = TensorError;

        fn visit<const D: usize>(&mut self, _: &str, _: &mut Param<Tensor<D>>) -> Result<(), TensorError> {
            Ok(())
        }

        fn visit_compute(&mut self, compute: &mut Compute) {
            *compute = self.0;
        }
    }
    model.visit_tensors("", &mut Set(compute))
}
