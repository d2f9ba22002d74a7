//! Where a frozen model is put, and in which numbers.

use burn::tensor::{DType, Device, FloatDType};

use crate::ModelError;

/// Where a frozen model is put, and the numbers in which its matrices are kept there.
///
/// Matrices (the weights of linear maps and the tables of vectors) are nearly all of a model; what else there is stays
/// float32, and so do activations, norms, scores and losses: a product alone is computed in the matrices' numbers.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The device, without autodiff for frozen models.
    pub device: Device,
    /// Numbers of the matrices.
    pub matrices: FloatDType,
}

impl Placement {
    /// bf16 matrices where `device` computes in bf16 and gains by it, float32 elsewhere. The CPU code widens bf16 for
    /// every product, which costs more than it saves.
    pub fn auto(device: &Device) -> Self {
        let fast = *device != Device::flex() && device.supports_dtype(FloatDType::BF16);
        Self { device: device.clone(), matrices: if fast { FloatDType::BF16 } else { FloatDType::F32 } }
    }

    /// bf16 matrices.
    ///
    /// # Errors
    /// A device that cannot compute in bf16.
    pub fn bf16(device: &Device) -> Result<Self, ModelError> {
        if !device.supports_dtype(FloatDType::BF16) {
            let reason = "it does not compute in bf16; use \"auto\" or \"f32\" for the frozen models";
            return Err(ModelError::Device(reason.into()));
        }
        Ok(Self { device: device.clone(), matrices: FloatDType::BF16 })
    }

    /// The numbers of a tensor with `dimensions` dimensions.
    pub(crate) fn dtype(&self, dimensions: usize) -> DType {
        if dimensions == 2 { self.matrices.into() } else { DType::F32 }
    }
}

impl From<&Device> for Placement {
    /// All float32.
    fn from(device: &Device) -> Self {
        Self { device: device.clone(), matrices: FloatDType::F32 }
    }
}

impl From<&Placement> for Placement {
    fn from(place: &Placement) -> Self {
        place.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::host::floats;
    use crate::language_model::{LanguageModel, Padded, Texts};
    use crate::vision::ImageEncoder;
    use burn::tensor::{Int, Tensor};

    /// Largest difference to float32, relative to the size of the values: bf16 keeps 8 bits of a number.
    const TOLERANCE: f64 = 0.03;

    fn backbone(name: &str) -> PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
    }

    fn wave<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        let count = shape.iter().product::<usize>() as i64;
        Tensor::<1, Int>::arange(0..count, &Device::flex()).float().sin().reshape(shape)
    }

    /// The values of both, which must be close and not the same.
    fn assert_close<const D: usize>(what: &str, got: Tensor<D>, want: Tensor<D>) {
        assert_eq!(got.dtype(), DType::F32, "{what}");
        let (got, want) = (floats(got).unwrap(), floats(want).unwrap());
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        let size = norm(&mut want.iter().map(|value| f64::from(*value)));
        let apart = norm(&mut got.iter().zip(&want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        assert!(apart > 0.0 && apart < TOLERANCE * size, "{what}: differs by {apart}, its norm is {size}");
    }

    fn places() -> [Placement; 2] {
        let device = Device::flex();
        [Placement::bf16(&device).unwrap(), Placement::from(&device)]
    }

    #[test]
    fn the_cpu_keeps_float32() {
        assert_eq!(Placement::auto(&Device::flex()).matrices, FloatDType::F32);
        let [bf16, _] = places();
        assert_eq!([1, 2, 3].map(|dimensions| bf16.dtype(dimensions)), [DType::F32, DType::BF16, DType::F32]);
    }

    #[test]
    fn encoders_in_bf16_give_float32_features_like_those_in_float32() {
        for name in ["eva-tiny", "clip-tiny"] {
            let [got, want] = places().map(|place| {
                let encoder = ImageEncoder::open(&backbone(name), &place).unwrap();
                let size = encoder.image_size();
                encoder.forward(wave([2, 3, size, size])).unwrap()
            });
            assert_close(name, got, want);
        }
    }

    #[test]
    fn language_models_in_bf16_give_losses_and_gradients_like_those_in_float32() {
        for name in ["opt-tiny", "t5-tiny"] {
            let [got, want] = places().map(|place| {
                let model = LanguageModel::open(&backbone(name), &place).unwrap();
                let (ids, mask) = ([2, 50, 61, 70, 80, 90], [1; 6]);
                let text = Padded { ids: &ids, mask: &mask };
                let prompt = Tensor::from_inner(wave([2, 4, model.width()]) * 0.1).require_grad();
                let texts = Texts { rows: 2, prefix: Padded::default(), text, labels: &ids };
                let loss = model.caption_loss(Some(prompt.clone()), &texts, &place.device).unwrap();
                let mut gradients = loss.objective.backward();
                (loss.value, prompt.grad_remove(&mut gradients).unwrap())
            });
            assert!((got.0 / want.0 - 1.0).abs() < TOLERANCE, "{name}: loss {} instead of {}", got.0, want.0);
            assert_close(name, got.1, want.1);
        }
    }
}
