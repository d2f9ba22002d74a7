//! Rows of image features between members: they travel in the numbers they were computed in, so that bf16
//! takes half the bytes and nothing is rounded on the way.

use burn::tensor::{DType, Device, Tensor, TensorData};
use bytes::Bytes;

use crate::error::{Result, WorkerError};

/// Each of as many rows of features, from the bytes of all.
pub(crate) fn rows_of(features: Vec<u8>, rows: usize) -> impl Iterator<Item = Bytes> {
    let all = Bytes::from(features);
    let length = all.len() / rows.max(1);
    (0..rows).map(move |row| all.slice(row * length..(row + 1) * length))
}

/// A row from its bytes, whose number says what numbers they are.
///
/// # Shapes
/// - output `[1, positions, width]`
///
/// # Errors
/// A row of another length, of which `row` is the number in the global batch.
pub(crate) fn row_tensor(
    bytes: &Bytes,
    row: usize,
    [positions, width]: [usize; 2],
    device: &Device,
) -> Result<Tensor<3>> {
    let dtype =
        [DType::F32, DType::BF16].into_iter().find(|dtype| bytes.len() == dtype.size() * positions * width);
    let dtype = dtype.ok_or_else(|| {
        let length = bytes.len();
        WorkerError::Protocol(format!(
            "row {row} has {length} bytes for {positions} features of width {width}"
        ))
    })?;
    let data = TensorData::from_bytes_vec(bytes.to_vec(), [1, positions, width], dtype);
    Ok(Tensor::from_data(data, (device, dtype)))
}

/// Rows one after the other: in their numbers, or in float32 where members have computed them in different
/// ones.
pub(crate) fn joined(rows: Vec<Tensor<3>>) -> Tensor<3> {
    let numbers = rows.first().map_or(DType::F32, Tensor::dtype);
    if rows.iter().all(|row| row.dtype() == numbers) {
        return Tensor::cat(rows, 0);
    }
    Tensor::cat(rows.into_iter().map(|row| row.cast(DType::F32)).collect(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_tensors::device::read_back::all_bytes;
    use burn::tensor::Int;

    fn features(dtype: DType) -> Tensor<3> {
        let values = Tensor::<1, Int>::arange(0..2 * 3 * 4, &Device::flex()).float();
        (values * 0.37).sin().reshape([2, 3, 4]).cast(dtype)
    }

    #[test]
    fn rows_arrive_as_they_were_in_as_many_bytes_as_they_need() {
        let device = Device::flex();
        for (dtype, bytes) in [(DType::F32, 4), (DType::BF16, 2)] {
            let sent: Vec<Bytes> = rows_of(all_bytes([features(dtype)]).unwrap().remove(0), 2).collect();
            assert_eq!(sent.iter().map(Bytes::len).collect::<Vec<_>>(), [bytes * 3 * 4; 2]);
            let arrived = sent.iter().map(|row| row_tensor(row, 0, [3, 4], &device).unwrap()).collect();
            assert_eq!(joined(arrived).into_data(), features(dtype).into_data());
        }
    }

    #[test]
    fn rows_in_different_numbers_are_joined_as_float32() {
        let [wide, narrow] = [DType::F32, DType::BF16].map(features);
        let all = joined(vec![wide.clone(), narrow.clone()]);
        assert_eq!(all.clone().narrow(0, 0, 2).into_data(), wide.into_data());
        assert_eq!(all.narrow(0, 2, 2).into_data(), narrow.cast(DType::F32).into_data());
    }

    #[test]
    fn a_row_of_another_length_is_refused() {
        let error =
            row_tensor(&Bytes::from(vec![0; 25]), 7, [3, 4], &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("row 7 has 25 bytes") && error.contains("width 4"), "{error}");
    }
}
