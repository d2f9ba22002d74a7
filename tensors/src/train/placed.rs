//! New values of a model's tensors, on their device before the model takes them.

use std::any::Any;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::TensorError;
use crate::nn::tensors::{NamedTensors, TensorVisitor};
use crate::train::flat::FlatLayout;

/// The most dimensions that a tensor may have.
const DIMENSIONS: usize = 4;

/// Tensors that a model takes at once, sent to their device one by one.
///
/// A device may be given them from any thread and while it computes; the model goes on with its own until
/// [`PlacedTensors::install`].
#[derive(Debug, Default)]
pub struct PlacedTensors {
    /// A `Tensor<D>` for each tensor of the layout that was sent.
    tensors: Vec<Option<Box<dyn Any + Send>>>,
}

impl PlacedTensors {
    /// Sends the values of tensor `index` of `layout` to `device`: as a leaf that requires a gradient on an
    /// autodiff device, as a plain tensor elsewhere.
    ///
    /// # Errors
    /// A tensor of more than four dimensions, or other values than it has.
    pub fn send(
        &mut self,
        layout: &FlatLayout,
        index: usize,
        values: &[f32],
        device: &Device,
    ) -> Result<(), TensorError> {
        let tensor = &layout.tensors()[index];
        let (dimensions, count) = (tensor.shape.len(), values.len());
        if !(1..=DIMENSIONS).contains(&dimensions) || count != tensor.len() {
            let reason = format!("{count} values for {dimensions} dimensions and {} elements", tensor.len());
            return Err(TensorError::input(&tensor.name, reason));
        }
        let data = TensorData::new(values.to_vec(), tensor.shape.clone());
        self.tensors.resize_with(layout.tensors().len(), || None);
        self.tensors[index] = Some(match dimensions {
            1 => leaf::<1>(data, device),
            2 => leaf::<2>(data, device),
            3 => leaf::<3>(data, device),
            _ => leaf::<4>(data, device),
        });
        Ok(())
    }

    /// Puts the tensors in the place of the model's, each of which keeps its identity.
    ///
    /// # Errors
    /// A tensor of the model that was not sent.
    pub fn install(self, layout: &FlatLayout, model: &mut impl NamedTensors) -> Result<(), TensorError> {
        struct Install<'a>(&'a FlatLayout, PlacedTensors);
        impl TensorVisitor for Install<'_> {
            type Error = TensorError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), TensorError> {
                let index = self.0.index_of(name)?;
                let sent = self.1.tensors.get_mut(index).and_then(Option::take);
                let sent = sent.and_then(|sent| sent.downcast::<Tensor<D>>().ok());
                let sent = sent.ok_or_else(|| TensorError::input(name, "its new values were not sent"))?;
                *tensor = Param::initialized(tensor.id, *sent);
                Ok(())
            }
        }
        model.visit_tensors("", &mut Install(layout, self))
    }
}

fn leaf<const D: usize>(data: TensorData, device: &Device) -> Box<dyn Any + Send> {
    let tensor = Tensor::<D>::from_data(data, device);
    Box::new(if device.is_autodiff() { tensor.require_grad() } else { tensor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::layers::Linear;

    #[test]
    fn a_model_takes_what_was_sent_and_misses_what_was_not() {
        let device = Device::flex().autodiff();
        let mut linear = Linear::new(3, 2, true, &device);
        let layout = FlatLayout::of(&mut linear).unwrap();
        let before = layout.read(&mut linear).unwrap();
        let new: Vec<f32> = (0..layout.len()).map(|at| at as f32 + 0.5).collect();
        let send = |placed: &mut PlacedTensors, index: usize| {
            let range = layout.tensors()[index].range();
            placed.send(&layout, index, &new[range], &device).unwrap();
        };
        let mut placed = PlacedTensors::default();
        send(&mut placed, 1);
        let error = placed.install(&layout, &mut linear).unwrap_err().to_string();
        assert!(error.contains("bias") && error.contains("not sent"), "{error}");
        let mut placed = PlacedTensors::default();
        (0..2).for_each(|index| send(&mut placed, index));
        assert_ne!(before, new);
        placed.install(&layout, &mut linear).unwrap();
        assert_eq!(layout.read(&mut linear).unwrap(), new);
        // They are leaves: a gradient reaches them.
        let mut gradients = linear.forward(Tensor::<2>::ones([1, 3], &device)).sum().backward();
        assert!(linear.weight.val().grad_remove(&mut gradients).is_some());
        assert!(PlacedTensors::default().send(&layout, 0, &[1.0; 5], &device).is_err());
    }
}
