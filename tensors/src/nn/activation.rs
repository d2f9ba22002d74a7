//! The element-wise functions of feed-forward parts.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, sigmoid, silu};
use serde::{Deserialize, Serialize};

use crate::device::cast::through_f32;
use crate::fused::{gated_gelu, gelu, relu};

/// An element-wise function, under its name in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The exact GELU, by the error function.
    Gelu,
    /// The GELU with a hyperbolic tangent in place of the error function.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    #[serde(alias = "swish")]
    Silu,
}

impl Activation {
    /// Applies the function to each element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluNew => through_f32(x, gelu_approximate),
            Self::QuickGelu => through_f32(x, |x| x.clone() * sigmoid(x * 1.702)),
            Self::Relu => relu(x),
            Self::Silu => through_f32(x, silu),
        }
    }

    /// Applies the function to each element of `x` and multiplies it by that of `gate`.
    pub(super) fn gated<const D: usize>(self, x: Tensor<D>, gate: Tensor<D>) -> Tensor<D> {
        match self {
            Self::GeluNew => gated_gelu(x, gate),
            _ => self.forward(x) * gate,
        }
    }
}
