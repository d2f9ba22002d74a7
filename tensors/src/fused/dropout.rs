//! Dropout by a mask that is a function of a key and the element's index.

mod autodiff;
mod composed;
mod kernel;
mod operation;

pub(crate) use kernel::{Mask, hash};

use burn::backend::flex::FlexTensor;
use burn::backend::{Dispatch, Flex, TensorMetadata};
use burn::tensor::Tensor;

use crate::device::cast::through_f32;
use crate::fused::flex::{contiguous, is_fused, tensor, values};
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
    use crate::fused::agreement::{agree, wave};
    use burn::tensor::Device;

    #[test]
    fn dropout_equals_its_composition() {
        let device = Device::flex().autodiff();
        let mask = Mask { key: 0xDEAD_BEEF, threshold: 1 << 22, factor: 4.0 / 3.0 };
        let x = wave([3, 130, 70], 0.73, &device);
        agree("dropout", [x], |[x]| dropout(x, mask), |[x]| composed(x, mask));
    }
}
