//! The numbers in which the products of trained parts are computed.

use std::fmt;

use burn::tensor::{DType, Device, FloatDType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::TensorError;

/// Numbers of the inputs of products: of linear maps, of attention's scores and of its probabilities with the
/// values, in the backward pass too. All else is float32: sums, parameters, norms, softmax, losses, gradients
/// between the products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compute {
    /// float32.
    #[default]
    F32,
    /// bf16: inputs are rounded to the nearest, ties to even. No loss scale is needed, bf16 has float32's
    /// exponents.
    Bf16,
}

impl fmt::Display for Compute {
    /// As a configuration names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl Compute {
    /// bf16 products on `device`.
    ///
    /// # Errors
    /// A device that cannot compute in bf16.
    pub fn bf16(device: &Device) -> Result<Self, TensorError> {
        match device.supports_dtype(FloatDType::BF16) {
            true => Ok(Self::Bf16),
            false => Err(TensorError::Device("it does not compute in bf16; use \"f32\"".into())),
        }
    }

    /// The numbers of a product's inputs.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}
