//! Where the operations are computed as one.

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Tensor};

use crate::device::cast;

/// Whether the operations take this tensor: float32 on the CPU; on a device of CubeCL's, whose kernels read
/// and write bf16 and compute in float32, that too.
pub(super) fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    is_fused_on_cpu(x) || is_number(x) && is_on_cube(x)
}

/// A function of float32, of values in any numbers, which the result has too; of what kernels read as it is,
/// without a cast before and one after it.
pub(super) fn through_f32<const D: usize>(
    x: Tensor<D>,
    function: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    match is_number(&x) && is_on_cube(&x) {
        true => function(x),
        false => cast::through_f32(x, function),
    }
}

/// Whether those operations take it that only the CPU has as one.
pub(super) fn is_fused_on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_on_cpu(x)
}

/// Whether operations take this tensor as what rows are multiplied by or added to: float32.
pub(super) fn is_weight<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32
}

/// Whether attention and the affine map take this tensor as a factor of their products.
pub(super) fn is_factor<const D: usize>(x: &Tensor<D>) -> bool {
    is_number(x) && (is_on_cpu(x) || is_on_cube(x))
}

/// Whether factors of products are such numbers.
fn is_number<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.dtype(), DType::F32 | DType::BF16)
}

fn is_on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.device().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// Whether the tensor is on a device of CubeCL's and has elements, without which there is nothing to launch.
#[cfg(feature = "cube")]
fn is_on_cube<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.device().inner().as_dispatch(), DispatchDevice::Cube(_)) && x.shape().num_elements() > 0
}

#[cfg(not(feature = "cube"))]
fn is_on_cube<const D: usize>(_: &Tensor<D>) -> bool {
    false
}
