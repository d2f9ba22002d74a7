//! Rotations slowed down for texts longer than those of a model's first training.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The kind that slows nothing.
const UNSCALED: &str = "default";

/// How the rotations are slowed, as `rope_scaling` says it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// All by the same factor (position interpolation, Chen et al., arXiv 2306.15595).
    Linear {
        /// How many times slower.
        factor: f64,
    },
    /// Slow ones by a factor, fast ones not at all, and those between by something between (Llama 3.1).
    Llama3 {
        /// How many times slower the slow ones turn.
        factor: f64,
        /// Turns within the original length up to which a rotation is slow.
        low_freq_factor: f64,
        /// Turns within the original length from which on a rotation is fast.
        high_freq_factor: f64,
        /// Positions of the first training.
        original_max_position_embeddings: f64,
    },
}

impl RopeScaling {
    /// Reads `rope_scaling` or `rope_parameters`; nothing where they ask for nothing.
    ///
    /// # Errors
    /// Another kind, or numbers that no model can have.
    pub(super) fn read(section: &Value) -> Result<Option<Self>, String> {
        let kind = section.get("rope_type").or_else(|| section.get("type"));
        if section.is_null() || kind.is_none_or(|kind| kind == UNSCALED) {
            return Ok(None);
        }
        let mut named = section.clone();
        named["rope_type"] = kind.cloned().unwrap_or_default();
        let scaling: Self = serde_json::from_value(named).map_err(|error| {
            format!("rotations {section} are not supported ({error}), only default, linear and llama3")
        })?;
        if scaling.is_possible() {
            return Ok(Some(scaling));
        }
        Err(format!("rotations {section}: factors are above 0, and high_freq_factor above low_freq_factor"))
    }

    fn is_possible(&self) -> bool {
        match *self {
            Self::Linear { factor } => factor > 0.0,
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: length,
            } => factor > 0.0 && low > 0.0 && high > low && length > 0.0,
        }
    }

    /// The slowed frequency, in radians a position.
    pub(super) fn slowed(&self, frequency: f64) -> f64 {
        match *self {
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let turns = original_max_position_embeddings * frequency / TAU;
                let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let kept = kept.clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sections_of_both_ages_are_read() {
        let read = |section: Value| RopeScaling::read(&section);
        assert_eq!(read(Value::Null), Ok(None));
        assert_eq!(read(json!({"rope_type": "default", "rope_theta": 5e5})), Ok(None));
        let linear = Ok(Some(RopeScaling::Linear { factor: 4.0 }));
        assert_eq!(read(json!({"type": "linear", "factor": 4.0})), linear);
        assert_eq!(read(json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4})), linear);
        for refused in [
            json!({"type": "yarn", "factor": 4.0}),
            json!({"type": "linear"}),
            json!({"type": "linear", "factor": 0.0}),
        ] {
            assert!(read(refused.clone()).unwrap_err().contains(&refused["type"].to_string()), "{refused}");
        }
    }

    /// The frequencies that `transformers` computes for a head of 16 with base 10000 and a factor of 8.
    #[test]
    fn llama3_equals_the_reference() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64.0,
        };
        let got: Vec<f64> = (0..8).map(|i| scaling.slowed(1e4_f64.powf(-f64::from(i) / 8.0))).collect();
        let want = [
            1.0,
            0.244384587,
            0.0130422562,
            0.00395284733,
            0.00125,
            0.000395284733,
            0.000125,
            3.95284733e-05,
        ];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-6 * want, "{got} != {want}");
        }
    }
}
