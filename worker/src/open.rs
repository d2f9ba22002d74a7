//! Opens what the settings name: devices, frozen models, tokenizers.

use std::path::Path;
use std::sync::Arc;

use blip2_dataset::text::{Cut, TextEncoder, TextEncoding};
use blip2_evaluation::fault::Fault as _;
use blip2_model::vision::ImageEncoder;
use blip2_model_files::tokenizer::{DECODER_START, QFormerTokenizer};
use blip2_model_files::weights::InitialValues;
use blip2_random::KeyedRng;
use blip2_tensors::device::DeviceName;
use blip2_tensors::device::placement::Placement;
use burn::tensor::Device;

use crate::error::{Result, WorkerError};
use crate::settings::model::{FrozenDtype, ModelSettings};
use crate::settings::train::{Compute, StepSettings};

/// A length of texts where none is cut.
const ANY_LENGTH: usize = 32;

/// The device that `train.device` names, without autodiff; `tf32` is `train.tf32`.
///
/// # Errors
/// A name of no device, or a device that is not there.
pub fn device(name: &str, tf32: bool) -> Result<Device> {
    let refused = |error| WorkerError::Configuration(format!("train.device = {error}"));
    name.parse::<DeviceName>().and_then(|name| name.open_with(tf32)).map_err(refused)
}

/// Where the frozen models go: `device`, with matrices in the numbers that `model.frozen_dtype` names.
///
/// # Errors
/// bf16 on a device that has no such numbers.
pub fn placement(settings: &ModelSettings, device: &Device) -> Result<Placement> {
    match settings.frozen_dtype {
        FrozenDtype::Auto => Ok(Placement::auto(device)),
        FrozenDtype::F32 => Ok(Placement::from(device)),
        FrozenDtype::Bf16 => Placement::bf16(device)
            .map_err(|error| WorkerError::Configuration(format!("model.frozen_dtype = \"bf16\": {error}"))),
    }
}

/// The numbers of products that `train.compute` names, which the device must have.
///
/// # Errors
/// bf16 on a device that does not compute in it.
pub fn compute(train: &StepSettings, device: &Device) -> Result<Compute> {
    match train.compute {
        Compute::F32 => Ok(Compute::F32),
        Compute::Bf16 => Compute::bf16(device)
            .map_err(|error| WorkerError::Configuration(format!("train.compute = \"bf16\": {error}"))),
    }
}

/// The frozen image encoder, for pictures of `model.image_size`.
pub(crate) fn image_encoder(settings: &ModelSettings, place: impl Into<Placement>) -> Result<ImageEncoder> {
    for_images_of(own_image_encoder(settings, place)?, "model.image_size", settings.image_size)
}

/// The frozen image encoder, for pictures of its own size.
pub(crate) fn own_image_encoder(
    settings: &ModelSettings,
    place: impl Into<Placement>,
) -> Result<ImageEncoder> {
    ImageEncoder::open(settings.image_encoder.as_ref(), place).map_err(|error| of_encoder(settings, error))
}

/// An image encoder for pictures of `side` pixels, which the setting `key` asks for; 0: its own.
pub(crate) fn for_images_of(encoder: ImageEncoder, key: &str, side: usize) -> Result<ImageEncoder> {
    if side == 0 {
        return Ok(encoder);
    }
    let refused = |error| WorkerError::Configuration(format!("{key} = {side}: {error}"));
    encoder.resized(side).map_err(refused)
}

/// The width of the image encoder's features, from its configuration alone.
pub(crate) fn image_width(settings: &ModelSettings) -> Result<usize> {
    ImageEncoder::width_of(settings.image_encoder.as_ref()).map_err(|error| of_encoder(settings, error))
}

/// What is wrong with the folder of the image encoder.
pub(crate) fn of_encoder(settings: &ModelSettings, error: impl Into<WorkerError>) -> WorkerError {
    WorkerError::of_model("model.image_encoder", &settings.image_encoder, error)
}

/// What is wrong with the folder of the language model.
pub(crate) fn of_language_model(settings: &ModelSettings, error: impl Into<WorkerError>) -> WorkerError {
    WorkerError::of_model("model.language_model", &settings.language_model, error)
}

/// What is wrong with the folder of the Q-Former's tokenizer.
fn of_tokenizer(settings: &ModelSettings, error: impl Into<WorkerError>) -> WorkerError {
    WorkerError::of_model("model.qformer_tokenizer", &settings.qformer_tokenizer, error)
}

/// The Q-Former's tokenizer, cutting to `length` tokens, and the id of `[DEC]`.
pub(crate) fn qformer_text(settings: &ModelSettings, length: usize) -> Result<(Arc<TextEncoder>, i32)> {
    qformer_text_cut(settings, length, ("", ""), Cut::Last)
}

/// The same with what is put before and behind every text; `cut` says which end of what is too long is left
/// out.
pub(crate) fn qformer_text_cut(
    settings: &ModelSettings,
    length: usize,
    (before, behind): (&str, &str),
    cut: Cut,
) -> Result<(Arc<TextEncoder>, i32)> {
    let QFormerTokenizer { origin, content, .. } = qformer_tokenizer(settings)?;
    let with_pad = |pad| {
        let (prefix, suffix) = (before.to_owned(), behind.to_owned());
        let encoding = TextEncoding { prefix, suffix, cut, ..TextEncoding::new(length, pad) };
        TextEncoder::from_json(&content, &origin, encoding).map_err(|error| of_tokenizer(settings, error))
    };
    let encoder = with_pad(with_pad(0)?.id_of("[PAD]").unwrap_or(0))?;
    let start = encoder.id_of(DECODER_START).ok_or_else(|| {
        let path = &settings.qformer_tokenizer;
        WorkerError::Configuration(format!(
            "model.qformer_tokenizer = \"{path}\" has no {DECODER_START} token"
        ))
    })?;
    Ok((Arc::new(encoder), start as i32))
}

/// Rows of the Q-Former's word table, and the id of `[DEC]`.
pub(crate) fn qformer_vocabulary(settings: &ModelSettings) -> Result<(usize, i32)> {
    let (text, start) = qformer_text(settings, ANY_LENGTH)?;
    Ok((text.vocab_size(), start))
}

/// The files of the Q-Former's tokenizer.
pub(crate) fn qformer_tokenizer(settings: &ModelSettings) -> Result<QFormerTokenizer> {
    QFormerTokenizer::open(Path::new(&settings.qformer_tokenizer))
        .map_err(|error| of_tokenizer(settings, error))
}

/// Initial values drawn by the run's seed and the tensor's name.
pub struct SeededValues {
    seed: u64,
}

impl SeededValues {
    /// Values of the run with this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn generator(&self, name: &str) -> KeyedRng {
        KeyedRng::new(self.seed, &format!("initial value of {name}"), &[])
    }
}

impl InitialValues for SeededValues {
    fn normal(&mut self, name: &str, count: usize) -> Vec<f32> {
        let mut generator = self.generator(name);
        (0..count).map(|_| generator.normal() as f32).collect()
    }

    fn uniform(&mut self, name: &str, count: usize) -> Vec<f32> {
        let mut generator = self.generator(name);
        (0..count).map(|_| (2.0 * generator.uniform() - 1.0) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use blip2_run::exit::ExitClass as _;

    use super::*;
    use blip2_model::vision::ImageEncoder;
    use burn::tensor::FloatDType;

    #[test]
    fn devices_are_named_by_the_configuration() {
        assert!(device("cpu", false).is_ok() && device("auto", true).is_ok());
        let error = device("tpu", false).unwrap_err();
        assert!(error.to_string().contains("train.device = \"tpu\" is not a device"), "{error}");
        assert_eq!(error.exit().code(), 78);
    }

    #[test]
    fn frozen_numbers_are_those_of_the_configuration() {
        let device = Device::flex();
        let of = |frozen_dtype| {
            let settings = ModelSettings { frozen_dtype, ..ModelSettings::default() };
            placement(&settings, &device).unwrap().matrices
        };
        assert_eq!(of(FrozenDtype::Auto), FloatDType::F32);
        assert_eq!(of(FrozenDtype::F32), FloatDType::F32);
        assert_eq!(of(FrozenDtype::Bf16), FloatDType::BF16);
        let settings = ModelSettings { frozen_dtype: FrozenDtype::Bf16, ..ModelSettings::default() };
        let place = placement(&settings, &device).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones/eva-tiny");
        ImageEncoder::open(&folder, &place).unwrap();
    }
}
