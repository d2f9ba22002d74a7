//! Reading tensors back to the host.

use burn::tensor::{Bytes, Int, Tensor, TensorData, Transaction};

use crate::error::TensorError;

/// The values in row-major order.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TensorError> {
    let data = tensor.try_into_data_as::<f32>().map_err(|e| TensorError::Device(e.to_string()))?;
    data.as_slice::<f32>().map(<[f32]>::to_vec).map_err(|e| TensorError::Device(format!("{e:?}")))
}

/// The values of several tensors, each in row-major order: the device is waited for once.
pub fn all_floats<const D: usize>(
    tensors: impl IntoIterator<Item = Tensor<D>>,
) -> Result<Vec<Vec<f32>>, TensorError> {
    let values = |data: TensorData| {
        data.convert::<f32>().try_to_vec::<f32>().map_err(|e| TensorError::Device(format!("{e:?}")))
    };
    read(tensors)?.into_iter().map(values).collect()
}

/// The same in the numbers that each tensor has, little-endian, where the device left them: nothing is
/// copied.
pub fn all_bytes<const D: usize>(
    tensors: impl IntoIterator<Item = Tensor<D>>,
) -> Result<Vec<Bytes>, TensorError> {
    Ok(read(tensors)?.into_iter().map(TensorData::into_bytes).collect())
}

/// The tensor as one of the thread that reads it. A device that joins operations into kernels ends the
/// joining of the thread that made a tensor when it is read in a transaction, wherever that thread has come
/// to: kernels, and with them the last bits, would differ from run to run. What made the tensor must have
/// been launched (`Device::flush`) before another thread gets it.
pub(crate) fn of_this_thread<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    // A clone belongs to the thread that makes it.
    tensor.clone()
}

fn read<const D: usize>(
    tensors: impl IntoIterator<Item = Tensor<D>>,
) -> Result<Vec<TensorData>, TensorError> {
    let register = |reading: Transaction, tensor| reading.register(of_this_thread(tensor));
    let mut tensors = tensors.into_iter().peekable();
    if tensors.peek().is_none() {
        return Ok(Vec::new());
    }
    let read = tensors.fold(Transaction::default(), register).try_execute();
    read.map_err(|e| TensorError::Device(e.to_string()))
}

/// The values in row-major order.
pub fn ints<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<i64>, TensorError> {
    let data = tensor.try_into_data_as::<i64>().map_err(|e| TensorError::Device(e.to_string()))?;
    data.as_slice::<i64>().map(<[i64]>::to_vec).map_err(|e| TensorError::Device(format!("{e:?}")))
}
