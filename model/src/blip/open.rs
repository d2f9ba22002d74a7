//! Models from their folders.

use std::path::Path;

use burn::tensor::Device;

use super::config::BlipConfig;
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{WeightSource, load};
use blip2_tensors::nn::tensors::NamedTensors;

/// Loads the folder of one of the models, which `new` makes of zeros, onto a plain `device`.
pub(super) fn open<M: NamedTensors>(
    folder: &Path,
    device: &Device,
    new: fn(&BlipConfig, &Device) -> M,
) -> Result<M, ModelError> {
    let config = BlipConfig::read(&FolderConfig::open(folder)?)?;
    let mut model = new(&config, device);
    load(&mut model, "", &WeightSource::open_huggingface(folder)?, device)?;
    Ok(model)
}
