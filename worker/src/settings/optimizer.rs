//! AdamW and its schedule.

use blip2_tensors::train::optimizer::{AdamW, Schedule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// AdamW and its schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// Peak learning rate.
    #[schemars(range(min = 0.0, max = 3.4e38))]
    pub learning_rate: f64,
    /// Learning rate at the end of the cosine.
    #[schemars(range(min = 0.0, max = 3.4e38))]
    pub min_learning_rate: f64,
    /// Learning rate of the first step.
    #[schemars(range(min = 0.0, max = 3.4e38))]
    pub warmup_learning_rate: f64,
    /// Steps of linear warm-up.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub warmup_steps: u64,
    /// Decay of the first moment.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub beta1: f64,
    /// Decay of the second moment.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub beta2: f64,
    /// Added to the denominator.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub epsilon: f64,
    /// Decoupled decay of tensors with two or more dimensions.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub weight_decay: f64,
    /// Largest global norm of the gradient; 0: not clipped.
    #[schemars(range(min = 0.0, max = 3.4e38))]
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
    /// What the paper fine-tunes with: a tenth of the learning rate of pre-training, down to nothing.
    pub(crate) fn fine_tuning() -> Self {
        Self {
            learning_rate: 1e-5,
            min_learning_rate: 0.0,
            warmup_learning_rate: 1e-8,
            warmup_steps: 1000,
            beta2: 0.999,
            ..Self::default()
        }
    }

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
