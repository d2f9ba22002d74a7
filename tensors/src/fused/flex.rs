//! The CPU backend's tensors, as the operations take and give them.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, TensorData};

use super::kernels::bf16;
use crate::device::compute::Compute;

/// The values of a tensor that was let through as float32.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    // Contiguous float32: `contiguous` made it so, [`is_fused`](super::place::is_fused) has seen the type.
    tensor.as_slice::<f32>().unwrap_or_default()
}

/// The tensor with its values in the order of their indices.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.is_contiguous() {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}

/// The tensor with its values changed: in its own memory, where no other tensor has it.
pub(super) fn changed(mut tensor: FlexTensor, change: impl FnOnce(&mut [f32])) -> FlexTensor {
    tensor = tensor.to_contiguous();
    change(tensor.storage_mut::<f32>());
    tensor
}

/// A new tensor.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Vec<usize>>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// A tensor as a factor of float32 products: widened, or rounded where these are computed in bf16. What is
/// summed stays float32.
pub(super) fn factor(x: FlexTensor, compute: Compute) -> FlexTensor {
    let shape = x.shape().to_vec();
    match (x.dtype(), compute) {
        // Contiguous bf16: `contiguous` made it so, the match has seen the type.
        (DType::BF16, _) => {
            tensor(bf16::widened(contiguous(x).as_slice::<half::bf16>().unwrap_or_default()), shape)
        }
        (_, Compute::F32) => x,
        (_, Compute::Bf16) => tensor(bf16::rounded(values(&contiguous(x))), shape),
    }
}

/// float32 in these numbers.
pub(super) fn result(x: FlexTensor, numbers: DType) -> FlexTensor {
    match numbers {
        DType::BF16 => {
            let shape = x.shape().to_vec();
            let narrowed = bf16::narrowed(values(&contiguous(x)));
            FlexTensor::from_data(TensorData::new(narrowed, shape))
        }
        _ => x,
    }
}
