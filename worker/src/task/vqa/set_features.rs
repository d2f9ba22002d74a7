//! The features of a set's images, of which each is asked about more than once.

use burn::tensor::Tensor;

use crate::error::Result;

/// Features of images by their numbers, `[1, P, Dv]` each: those that come in their order are kept, as far as
/// there is room, and not computed again.
pub(super) struct SetFeatures<F> {
    compute: F,
    kept: Vec<Tensor<3>>,
    /// Values that may still be kept.
    room: usize,
}

impl<F: FnMut(&[usize]) -> Result<Tensor<3>>> SetFeatures<F> {
    /// Those that `compute` gives, of which `room` values are kept.
    pub(super) fn new(compute: F, room: usize) -> Self {
        Self { compute, kept: Vec::new(), room }
    }

    /// Of these images, `[images, P, Dv]`.
    ///
    /// # Errors
    /// Those of the computation.
    pub(super) fn of(&mut self, images: &[usize]) -> Result<Tensor<3>> {
        let kept: Option<Vec<_>> = images.iter().map(|image| self.kept.get(*image).cloned()).collect();
        if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
            return Ok(Tensor::cat(kept, 0));
        }
        let features = (self.compute)(images)?;
        let values = features.shape().num_elements();
        let are_next = (self.kept.len()..).zip(images).all(|(next, image)| next == *image);
        if are_next && values <= self.room {
            self.room -= values;
            self.kept.extend((0..images.len()).map(|row| features.clone().narrow(0, row, 1)));
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn what_is_kept_is_not_computed_again() {
        let computed = RefCell::new(Vec::new());
        let compute = |images: &[usize]| {
            computed.borrow_mut().extend_from_slice(images);
            let values: Vec<f32> = images.iter().flat_map(|image| [*image as f32; 2]).collect();
            Ok(Tensor::from_data(TensorData::new(values, [images.len(), 1, 2]), &Device::flex()))
        };
        // Two of three batches.
        let mut features = SetFeatures::new(compute, 8);
        let mut of =
            |images: &[usize]| -> Vec<f32> { features.of(images).unwrap().into_data().try_to_vec().unwrap() };
        for images in [[0, 1], [2, 3], [4, 5]] {
            of(&images);
        }
        assert_eq!(of(&[3, 0]), [3.0, 3.0, 0.0, 0.0]);
        assert_eq!(of(&[1, 2, 2]), [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(*computed.borrow(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(of(&[0, 5]), [0.0, 0.0, 5.0, 5.0]);
        assert_eq!(computed.borrow()[6..], [0, 5]);
    }
}
