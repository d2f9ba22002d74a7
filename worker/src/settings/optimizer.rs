//! AdamW and its schedule.

use blip2_tensors::train::optimizer::{AdamW, Schedule};
use serde::{Deserialize, Serialize};

/// AdamW and its schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end of the cosine.
    pub min_learning_rate: f64,
    /// Learning rate of the first step.
    pub warmup_learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Denominator's epsilon.
    pub epsilon: f64,
    /// Decoupled weight decay of tensors with two or more dimensions.
    pub weight_decay: f64,
    /// Clip the gradient's global norm; 0: off.
    pub clip_norm: f64,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            min_learning_rate: 1e-5,
            warmup_learning_rate: 1e-6,
            warmup_steps: 2000,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.05,
            clip_norm: 0.0,
        }
    }
}

impl OptimizerSettings {
    /// AdamW's constants.
    pub fn adamw(&self) -> AdamW {
        AdamW { beta1: self.beta1, beta2: self.beta2, epsilon: self.epsilon, weight_decay: self.weight_decay }
    }

    /// The learning-rate schedule over `steps`.
    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            peak: self.learning_rate,
            minimum: self.min_learning_rate,
            warmup_start: self.warmup_learning_rate,
            warmup_steps: self.warmup_steps,
            steps,
        }
    }
}
