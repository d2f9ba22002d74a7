//! Weights that mean nothing, for measurements of models whose files are not there.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::error::ModelError;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::narrow::NarrowMatrix;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, set_as};

/// Half the width of the weights' range: small enough that no score of a deep model overflows.
const RANGE: f32 = 0.05;

/// Puts arbitrary small numbers into every tensor of a frozen model, one tensor at a time, at its place.
///
/// # Errors
/// None but those of the model's own visit.
pub fn randomise(model: &mut impl NamedTensors, place: &Placement) -> Result<(), ModelError> {
    struct Randomise<'a>(&'a Placement);
    impl TensorVisitor for Randomise<'_> {
        type Error = ModelError;

        fn visit<const D: usize>(
            &mut self,
            _: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let shape = tensor.lazy_shape().to_vec();
            let values = values(shape.iter().product());
            set_as(tensor, TensorData::new(values, shape), &self.0.device, self.0.dtype(D));
            Ok(())
        }

        fn visit_matrix(
            &mut self,
            name: &str,
            matrix: &mut Param<Tensor<2>>,
            narrow: &mut Option<NarrowMatrix>,
        ) -> Result<(), ModelError> {
            let Some(dtype) = self.0.narrow else { return self.visit(name, matrix) };
            let shape = matrix.lazy_shape();
            *narrow = Some(NarrowMatrix::new(&values(shape[0] * shape[1]), shape[1], dtype));
            Ok(())
        }
    }
    model.visit_tensors("", &mut Randomise(place))
}

fn values(count: usize) -> Vec<f32> {
    // Knuth's multiplicative hash.
    let hash = |at: usize| (at as u32).wrapping_mul(2_654_435_761) >> 8;
    let value = |at: usize| (hash(at) as f32 / (1 << 23) as f32 - 1.0) * RANGE;
    (0..count).into_par_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::*;
    use blip2_tensors::device::read_back::floats;
    use blip2_tensors::nn::layers::Linear;

    #[test]
    fn weights_are_small_spread_and_in_the_numbers_of_their_place() {
        let mut linear = Linear::new(64, 32, true, &Device::flex());
        randomise(&mut linear, &Placement::bf16(&Device::flex()).unwrap()).unwrap();
        assert_eq!((linear.weight.val().dtype(), linear.weight.val().dims()), (DType::BF16, [32, 64]));
        let values = floats(linear.weight.val()).unwrap();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let largest = values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        // bf16 rounds up.
        assert!(largest < 1.01 * RANGE && mean.abs() < 0.01, "{largest} {mean}");
        assert!(values.iter().any(|value| *value > 0.04) && values.iter().any(|value| *value < -0.04));
    }
}
