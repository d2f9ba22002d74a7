//! Reading tensors back to the host.

use burn::tensor::{Int, Tensor};

use crate::ModelError;

/// The values in row-major order.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    let data = tensor.try_into_data_as::<f32>().map_err(|e| ModelError::Device(e.to_string()))?;
    data.as_slice::<f32>().map(<[f32]>::to_vec).map_err(|e| ModelError::Device(format!("{e:?}")))
}

/// The values in row-major order.
pub(crate) fn ints<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<i64>, ModelError> {
    let data = tensor.try_into_data_as::<i64>().map_err(|e| ModelError::Device(e.to_string()))?;
    data.as_slice::<i64>().map(<[i64]>::to_vec).map_err(|e| ModelError::Device(format!("{e:?}")))
}
