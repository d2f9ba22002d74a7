//! The trainable tensors of a model as one flat buffer.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::error::TensorError;
use crate::nn::narrow::NarrowMatrix;
use crate::nn::tensors::{NamedTensors, TensorVisitor, set};

/// Elements that one task copies.
const CHUNK: usize = 1 << 18;

/// One tensor's place in a [`FlatLayout`].
#[derive(Debug, Clone, PartialEq)]
pub struct FlatTensor {
    /// Published name.
    pub name: String,
    /// Shape in PyTorch's layout.
    pub shape: Vec<usize>,
    /// First element in the flat buffer.
    pub offset: usize,
    /// What its learning rate is multiplied by, and so its decay: more than 0 and at most 1, which changes no
    /// bit.
    pub learning_rate_scale: f64,
}

impl FlatTensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements' range in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }

    /// Whether AdamW decays it: two or more dimensions and not a bias.
    pub fn decays(&self) -> bool {
        self.shape.len() >= 2 && !self.name.ends_with(".bias")
    }
}

/// The trainable tensors of a model laid end to end, in the order of their names.
///
/// The order depends on names alone, so that two processes that hold the same model agree on it.
#[derive(Debug, Clone, PartialEq)]
pub struct FlatLayout {
    tensors: Vec<FlatTensor>,
    len: usize,
}

impl FlatLayout {
    /// The layout of `model`; tensors that are not loaded yet stay so.
    pub fn of(model: &mut impl NamedTensors) -> Result<Self, TensorError> {
        struct Names(Vec<(String, Vec<usize>)>);
        impl TensorVisitor for Names {
            type Error = TensorError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), TensorError> {
                self.0.push((name.to_string(), tensor.lazy_shape().to_vec()));
                Ok(())
            }

            fn visit_matrix(
                &mut self,
                name: &str,
                matrix: &mut Param<Tensor<2>>,
                _: &mut Option<NarrowMatrix>,
            ) -> Result<(), TensorError> {
                self.visit(name, matrix)
            }
        }
        let mut names = Names(Vec::new());
        model.visit_tensors("", &mut names)?;
        Ok(Self::new(names.0))
    }

    /// A layout of named shapes.
    pub fn new(mut shapes: Vec<(String, Vec<usize>)>) -> Self {
        shapes.sort();
        let mut len = 0;
        let tensors = shapes
            .into_iter()
            .map(|(name, shape)| {
                let tensor = FlatTensor { name, shape, offset: len, learning_rate_scale: 1.0 };
                len += tensor.len();
                tensor
            })
            .collect();
        Self { tensors, len }
    }

    /// The same tensors with the learning rate of each multiplied by `scale` of its name; a new layout's are
    /// multiplied by 1.
    ///
    /// # Errors
    /// A scale that is not above 0, or above 1.
    pub fn with_learning_rate_scales(mut self, scale: impl Fn(&str) -> f64) -> Result<Self, TensorError> {
        for tensor in &mut self.tensors {
            let scale = scale(&tensor.name);
            if !(scale > 0.0 && scale <= 1.0) {
                let reason = format!("a learning rate times {scale}, which must be above 0 and at most 1");
                return Err(TensorError::input(&tensor.name, reason));
            }
            tensor.learning_rate_scale = scale;
        }
        Ok(self)
    }

    /// The tensors in order.
    pub fn tensors(&self) -> &[FlatTensor] {
        &self.tensors
    }

    /// Number of elements of all tensors.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to train.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&FlatTensor> {
        self.index_of(name).ok().map(|index| &self.tensors[index])
    }

    fn find(&self, name: &str) -> Result<&FlatTensor, TensorError> {
        Ok(&self.tensors[self.index_of(name)?])
    }

    /// The place among the tensors of the one called `name`.
    pub(crate) fn index_of(&self, name: &str) -> Result<usize, TensorError> {
        let found = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name));
        found.map_err(|_| TensorError::Missing { name: name.into() })
    }

    /// Copies the model's tensors into a new flat buffer.
    pub fn read(&self, model: &mut impl NamedTensors) -> Result<Vec<f32>, TensorError> {
        struct Read<'a>(&'a FlatLayout, Vec<f32>);
        impl TensorVisitor for Read<'_> {
            type Error = TensorError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), TensorError> {
                let range = self.0.find(name)?.range();
                copy_values(tensor.val().inner(), &mut self.1[range])
            }
        }
        let mut read = Read(self, vec![0.0; self.len]);
        model.visit_tensors("", &mut read)?;
        Ok(read.1)
    }

    /// Sets the model's tensors from a flat buffer, as leaves that require gradients on an autodiff
    /// `device` and as plain tensors elsewhere.
    pub fn write(
        &self,
        model: &mut impl NamedTensors,
        flat: &[f32],
        device: &Device,
    ) -> Result<(), TensorError> {
        struct Write<'a>(&'a FlatLayout, &'a [f32], &'a Device);
        impl TensorVisitor for Write<'_> {
            type Error = TensorError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), TensorError> {
                let place = self.0.find(name)?;
                let values = self.1[place.range()].par_iter().with_min_len(CHUNK).copied();
                set(tensor, TensorData::new(values.collect::<Vec<f32>>(), place.shape.clone()), self.2);
                Ok(())
            }
        }
        model.visit_tensors("", &mut Write(self, flat, device))
    }
}

fn copy_values<const D: usize>(tensor: Tensor<D>, into: &mut [f32]) -> Result<(), TensorError> {
    let data = tensor.try_into_data().map_err(|e| TensorError::Device(e.to_string()))?;
    let values = data.as_slice::<f32>().map_err(|e| TensorError::Device(format!("{e:?}")))?;
    into.copy_from_slice(values);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::layers::Linear;

    #[test]
    fn flat_buffer_round_trips_in_name_order() {
        let device = Device::flex();
        let mut linear = Linear::new(3, 2, true, &device);
        let layout = FlatLayout::of(&mut linear).unwrap();
        assert_eq!(layout.tensors()[0].name, "bias");
        assert_eq!(layout.tensors()[1].shape, vec![2, 3]);
        let flat: Vec<f32> = (0..8).map(|i| i as f32).collect();
        layout.write(&mut linear, &flat, &device).unwrap();
        assert_eq!(layout.read(&mut linear).unwrap(), flat);
    }
}
