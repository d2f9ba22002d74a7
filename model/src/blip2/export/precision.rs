//! The numbers that weights are written in.

use half::{bf16, f16};

use blip2_model_files::error::ModelError;

/// How the numbers of written weights are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

impl Precision {
    /// Bytes of a number.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name in a safetensors header.
    pub(super) fn safetensors(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// PyTorch's name, as `config.json` has it.
    pub(super) fn torch(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Appends `values`, of the tensor `name`, in little-endian order.
    ///
    /// # Errors
    /// A finite number that half precision would make infinite.
    pub(super) fn encode(self, name: &str, values: &[f32], into: &mut Vec<u8>) -> Result<(), ModelError> {
        match self {
            Self::F32 => values.iter().for_each(|value| into.extend(value.to_le_bytes())),
            Self::Bf16 => values.iter().for_each(|value| into.extend(bf16::from_f32(*value).to_le_bytes())),
            Self::F16 => {
                for value in values {
                    let half = f16::from_f32(*value);
                    if half.is_infinite() && value.is_finite() {
                        let reason =
                            format!("`{name}` holds {value}, beyond half precision: use bf16 or f32");
                        return Err(ModelError::input("weights", reason));
                    }
                    into.extend(half.to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_half_precision_are_refused() {
        let mut bytes = Vec::new();
        let error = Precision::F16.encode("a.weight", &[1.0, 1e5], &mut bytes).unwrap_err().to_string();
        assert!(error.contains("a.weight") && error.contains("100000"), "{error}");
        bytes.clear();
        Precision::F16.encode("a", &[1.5, f32::INFINITY], &mut bytes).unwrap();
        Precision::Bf16.encode("a", &[1e5], &mut bytes).unwrap();
        assert_eq!(bytes.len(), 6);
    }
}
