//! Images travel to the device as bytes, a quarter of their size as f32, and are normalised there.

use burn::tensor::{AllocationProperty, DType, Device, Int, Tensor, TensorData};
use bytes::Bytes;

/// Bytes of `[rows, 3, size, size]` as `(x / 255 - mean) / std`; they are shared with the tensor, not copied.
pub(crate) fn normalised_pixels(
    pixels: Bytes,
    [rows, size]: [usize; 2],
    (mean, std): ([f32; 3], [f32; 3]),
    device: &Device,
) -> Tensor<4> {
    let pixels = burn::tensor::Bytes::from_shared(pixels, AllocationProperty::Native);
    let bytes = TensorData::from_bytes(pixels, [rows, 3, size, size], DType::U8);
    // Some GPU drivers have no integers of eight bits.
    let integer = if device.supports_dtype(DType::U8) { DType::U8 } else { DType::I32 };
    let bytes = Tensor::<4, Int>::from_data(bytes, (device, integer)).float();
    let channels = |values: [f32; 3]| {
        Tensor::<1>::from_data(TensorData::new(values.to_vec(), [3]), device).reshape([1, 3, 1, 1])
    };
    // Dividing by a tensor: a scalar might be turned into a factor, which rounds otherwise.
    let levels = Tensor::<1>::from_data(TensorData::new(vec![255.0f32], [1]), device).reshape([1, 1, 1, 1]);
    (bytes / levels - channels(mean)) / channels(std)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_images::transform::{CLIP_MEAN, CLIP_STD};

    #[test]
    fn the_device_computes_what_the_host_did() {
        let pixels: Vec<u8> = (0..2 * 3 * 16 * 16).map(|index| (index * 7 % 256) as u8).collect();
        let expected = blip2_images::transform::normalised(&pixels, 256, CLIP_MEAN, CLIP_STD);
        let tensor = normalised_pixels(pixels.into(), [2, 16], (CLIP_MEAN, CLIP_STD), &Device::flex());
        assert_eq!(tensor.dims(), [2, 3, 16, 16]);
        let values = tensor.into_data().try_to_vec::<f32>().unwrap();
        assert!(values == expected, "bit for bit");
    }
}
