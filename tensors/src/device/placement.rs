//! Where a frozen model is put, and in which numbers.

use burn::tensor::{DType, Device, FloatDType};
use serde::{Deserialize, Serialize};

use crate::error::TensorError;

/// Numbers that a matrix is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NarrowDtype {
    /// bf16: float32's range, 8 bits of its 24.
    Bf16,
    /// Whole numbers from -127 to 127, and one float32 for each row that they are multiplied by.
    Int8,
}

/// Where a frozen model is put, and the numbers in which it is kept there.
///
/// Matrices (the weights of linear maps and the tables of vectors) are nearly all of a model. Their numbers
/// are those of the residual stream and of what linear maps add, too. Norms, softmax and activations are
/// computed in float32, by parameters that stay float32, and rounded once; scores and losses are float32.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The device, without autodiff for frozen models.
    pub device: Device,
    /// Numbers of the matrices and of the activations between them.
    pub matrices: FloatDType,
    /// Numbers of a language model's matrices, where it is to be read alone and these are to take fewer bits;
    /// what is between them stays as `matrices` says.
    pub narrow: Option<NarrowDtype>,
    /// Whether values are read. If not, tensors are compared by name and shape alone and stay zeros without
    /// memory.
    pub reads: bool,
}

impl Placement {
    /// bf16 matrices where `device` computes in bf16 and gains by it, float32 elsewhere. The CPU code widens
    /// bf16 for every product, which costs more than it saves.
    pub fn auto(device: &Device) -> Self {
        let fast = *device != Device::flex() && device.supports_dtype(FloatDType::BF16);
        let matrices = if fast { FloatDType::BF16 } else { FloatDType::F32 };
        Self { device: device.clone(), matrices, narrow: None, reads: true }
    }

    /// bf16 matrices.
    ///
    /// # Errors
    /// A device that cannot compute in bf16.
    pub fn bf16(device: &Device) -> Result<Self, TensorError> {
        if !device.supports_dtype(FloatDType::BF16) {
            let reason = "it does not compute in bf16; use \"auto\" or \"f32\" for the frozen models";
            return Err(TensorError::Device(reason.into()));
        }
        Ok(Self { device: device.clone(), matrices: FloatDType::BF16, narrow: None, reads: true })
    }

    /// All float32 but the matrices of a language model, which are kept in fewer bits.
    ///
    /// # Errors
    /// Another device than the CPU, or a tape.
    pub fn narrow(device: &Device, dtype: NarrowDtype) -> Result<Self, TensorError> {
        if device.is_autodiff() || *device != Device::flex() {
            let reason = "a language model is kept in bf16 or int8 beside float32 on the CPU alone; use f32";
            return Err(TensorError::Device(reason.into()));
        }
        Ok(Self { narrow: Some(dtype), ..Self::from(device) })
    }

    /// The same for what is no language model.
    pub fn without_narrow(&self) -> Self {
        Self { narrow: None, ..self.clone() }
    }

    /// No place: a model that is loaded here is one whose files fit its configuration, and nothing else. It
    /// takes a moment and no memory, whatever the size of the model.
    pub fn nowhere() -> Self {
        Self { device: Device::flex(), matrices: FloatDType::F32, narrow: None, reads: false }
    }

    /// The numbers of a tensor with `dimensions` dimensions.
    pub fn dtype(&self, dimensions: usize) -> DType {
        if dimensions == 2 { self.matrices.into() } else { DType::F32 }
    }
}

impl From<&Device> for Placement {
    /// All float32.
    fn from(device: &Device) -> Self {
        Self { device: device.clone(), matrices: FloatDType::F32, narrow: None, reads: true }
    }
}

impl From<Device> for Placement {
    /// All float32.
    fn from(device: Device) -> Self {
        Self::from(&device)
    }
}

impl From<&Placement> for Placement {
    fn from(place: &Placement) -> Self {
        place.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_keeps_float32() {
        assert_eq!(Placement::auto(&Device::flex()).matrices, FloatDType::F32);
        let bf16 = Placement::bf16(&Device::flex()).unwrap();
        assert_eq!([1, 2, 3].map(|dimensions| bf16.dtype(dimensions)), [DType::F32, DType::BF16, DType::F32]);
    }

    #[test]
    fn fewer_bits_are_for_a_language_model_on_the_cpu() {
        let int8 = Placement::narrow(&Device::flex(), NarrowDtype::Int8).unwrap();
        assert_eq!((int8.narrow, int8.dtype(2)), (Some(NarrowDtype::Int8), DType::F32));
        assert_eq!(int8.without_narrow().narrow, None);
        let error = Placement::narrow(&Device::flex().autodiff(), NarrowDtype::Int8).unwrap_err();
        assert!(error.to_string().contains("on the CPU alone"), "{error}");
    }
}
