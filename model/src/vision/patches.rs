//! Images into patch vectors.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use blip2_model_files::config::SIDE;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::layers::zeros;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// A convolution whose stride is its kernel's size, computed as one product over unfolded patches.
#[derive(Module, Debug)]
pub(crate) struct PatchEmbedding {
    /// `[width, 3, patch, patch]`.
    weight: Param<Tensor<4>>,
    /// `[width]`.
    bias: Option<Param<Tensor<1>>>,
}

impl PatchEmbedding {
    pub(crate) fn new(width: usize, patch: usize, bias: bool, device: &Device) -> Self {
        Self { weight: zeros([width, 3, patch, patch], device), bias: bias.then(|| zeros([width], device)) }
    }

    /// # Shapes
    /// - pixels `[b, 3, g·patch, g·patch]`; output `[b, g·g, width]`, row by row
    pub(crate) fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let weight = self.weight.val();
        let [width, channels, patch, _] = weight.dims();
        let [batch, _, height, breadth] = pixels.dims();
        let (rows, columns) = (height / patch, breadth / patch);
        let elements = channels * patch * patch;
        let patches = pixels
            .reshape([batch, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, elements]);
        let weight = weight.reshape([width, elements]).transpose();
        burn::tensor::module::linear(patches, weight, self.bias.as_ref().map(|bias| bias.val()))
    }
}

impl NamedTensors for PatchEmbedding {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        visitor.visit(&join(prefix, "weight"), &mut self.weight)?;
        match &mut self.bias {
            Some(bias) => visitor.visit(&join(prefix, "bias"), bias),
            None => Ok(()),
        }
    }
}

/// Refuses images that are not square RGB of the model's size.
pub(crate) fn check_pixels(pixels: &Tensor<4>, image_size: usize) -> Result<(), ModelError> {
    let dims = pixels.dims();
    if dims[1..] != [3, image_size, image_size] {
        let reason =
            format!("shape {dims:?}, the image encoder takes [batch, 3, {image_size}, {image_size}]");
        return Err(ModelError::input("pixels", reason));
    }
    Ok(())
}

/// Refuses sizes that no vision transformer can have.
pub(crate) fn check_sizes(
    width: usize,
    heads: usize,
    image_size: usize,
    patch_size: usize,
) -> Result<(), ModelError> {
    if heads == 0 || !width.is_multiple_of(heads) {
        let reason =
            format!("width {width} is not a multiple of {heads} heads (hidden_size, num_attention_heads)");
        return Err(ModelError::input("image encoder configuration", reason));
    }
    if image_size as u64 > SIDE {
        let reason = format!("image size {image_size} is more than {SIDE} pixels (image_size)");
        return Err(ModelError::input("image encoder configuration", reason));
    }
    if patch_size == 0 || image_size < patch_size || !image_size.is_multiple_of(patch_size) {
        let reason = format!(
            "image size {image_size} is not a multiple of patch size {patch_size} (image_size, patch_size)"
        );
        return Err(ModelError::input("image encoder configuration", reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Int;
    use burn::tensor::module::conv2d;
    use burn::tensor::ops::ConvOptions;

    #[test]
    fn the_product_equals_the_convolution() {
        let device = Device::flex();
        let wave = |count: i64| Tensor::<1, Int>::arange(0..count, &device).float().sin();
        let mut embedding = PatchEmbedding::new(5, 4, true, &device);
        embedding.weight = Param::from_tensor(wave(5 * 3 * 16).reshape([5, 3, 4, 4]));
        embedding.bias = Some(Param::from_tensor(wave(5)));
        let pixels = (wave(2 * 3 * 144) * 3.0).reshape([2, 3, 12, 12]);
        let options = ConvOptions::new([4, 4], [0, 0], [1, 1], 1);
        let want = conv2d(pixels.clone(), embedding.weight.val(), Some(wave(5)), options)
            .reshape([2, 5, 9])
            .swap_dims(1, 2);
        let difference = (embedding.forward(pixels) - want).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn sizes_are_checked() {
        assert!(check_sizes(12, 5, 32, 8).unwrap_err().to_string().contains("heads"));
        assert!(check_sizes(12, 4, 30, 8).unwrap_err().to_string().contains("patch size"));
        check_sizes(12, 4, 32, 8).unwrap();
        let pixels = Tensor::zeros([1, 3, 32, 24], &Device::flex());
        assert!(check_pixels(&pixels, 32).unwrap_err().to_string().contains("[1, 3, 32, 24]"));
    }
}
