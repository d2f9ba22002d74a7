//! Pictures as a batch of a model's input.

use blip2_dataset::DatasetError;
use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use rayon::prelude::*;

use crate::error::Result;

/// Each picture by `transform`, `[b, 3, size, size]`.
pub(super) fn pixels(
    images: &[&RgbImage],
    size: usize,
    device: &Device,
    transform: impl Fn(&RgbImage) -> Result<Vec<f32>, DatasetError> + Sync,
) -> Result<Tensor<4>> {
    let pictures = images.par_iter().map(|image| transform(image));
    let pictures: Vec<Vec<f32>> = pictures.collect::<Result<_, DatasetError>>()?;
    let values = TensorData::new(pictures.concat(), [images.len(), 3, size, size]);
    Ok(Tensor::from_data(values, device))
}
