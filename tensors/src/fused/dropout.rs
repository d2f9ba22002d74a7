//! Dropout by a mask that is a function of a key and the element's index.

mod autodiff;
mod composed;
#[cfg(feature = "cube")]
pub(super) mod cube;
mod kernel;
mod operation;

pub(crate) use kernel::{Mask, hash};

use burn::backend::flex::FlexTensor;
use burn::backend::{Dispatch, Flex, TensorMetadata};
use burn::tensor::Tensor;

use crate::fused::flex::{contiguous, tensor, values};
use crate::fused::place::{is_fused, through_f32};
pub(super) use composed::composed;
pub(super) use operation::DropoutOps;

/// The elements that the mask keeps, multiplied by its factor, and zero for the others.
pub(crate) fn dropout<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    through_f32(x, |x| match is_fused(&x) {
        true => Tensor::from_dispatch(Dispatch::fused_dropout(x.into_dispatch(), mask)),
        false => composed(x, mask),
    })
}

impl DropoutOps for Flex {
    fn fused_dropout(x: FlexTensor, mask: Mask) -> FlexTensor {
        let shape = x.shape().to_vec();
        tensor(kernel::apply(values(&contiguous(x)), mask), shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::agreement::{agree, device, is_rounded, wave};

    #[test]
    fn dropout_equals_its_composition() {
        let device = device().autodiff();
        let mask = Mask { key: 0xDEAD_BEEF, threshold: 1 << 22, factor: 4.0 / 3.0 };
        let x = wave([3, 130, 70], 0.73, &device);
        agree("dropout", [x], |[x]| dropout(x, mask), |[x]| composed(x, mask));
    }

    #[test]
    fn of_bf16_it_is_rounded_once() {
        let mask = Mask { key: 0xDEAD_BEEF, threshold: 1 << 22, factor: 4.0 / 3.0 };
        is_rounded("dropout", wave([3, 13, 70], 0.73, &device().autodiff()), |x| dropout(x, mask));
    }
}
