//! What all steps share.

pub use blip2_collective::Wire;
use blip2_model::objectives::contrast;
pub use blip2_tensors::device::compute::Compute;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What all steps share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StepSettings {
    /// Key of every random draw.
    #[schemars(range(min = 0, max = i64::MAX))]
    pub seed: u64,
    /// Micro-batches a global batch is cut into: a power of two, at least the number of workers.
    #[schemars(range(min = 1, max = 65_536))]
    pub slots: u32,
    /// `exact`: the gradient of the global-batch loss; `keys_detached`: the reference's, without gradient
    /// through contrastive keys.
    pub gradients: GradientMode,
    /// `cpu`, `cuda`, `cuda:N`, `vulkan`, `vulkan:N`, or `auto`: each worker takes a CUDA device, a discrete
    /// GPU under Vulkan or the CPU, the first that is there.
    pub device: String,
    /// Numbers of the inputs of products in what is trained and on the gradient's way through the language
    /// model, backwards too: `f32`, or `bf16` with float32 sums. Parameters, norms, softmax, losses and
    /// gradients are float32 either way (docs/devices.md).
    pub compute: Compute,
    /// Let products of float32 round their factors to TF32 (10 bits of a number's 23, about 1e-3) where a GPU
    /// has units for that. Without it they are products of float32 on every device (docs/devices.md).
    pub tf32: bool,
    /// Numbers in which gradients travel between members: `f32`, or `bf16` with half the bytes. The sums are
    /// float32 either way; with `bf16` every node of the tree over the slots is rounded, so that the number
    /// of workers still changes no bit.
    pub wire: Wire,
    /// Read, sum and apply parts of the gradient while the rest of it is computed, with a second copy of
    /// parameters and moments on the host and of the parameters on the device; changes no bit of the result.
    #[schemars(extend("x-unhashed" = true))]
    pub overlap: bool,
    /// What becomes of a step whose loss, gradient or update is not a finite number: `stop` ends the run
    /// before it is committed, `skip` commits it without a change of the parameters. Such a step never
    /// changes them, so a run may be continued with the other choice.
    #[schemars(extend("x-unhashed" = true))]
    pub non_finite: NonFiniteSteps,
    /// Steps of a run that may be skipped; one more ends it.
    #[schemars(range(min = 0, max = 1000), extend("x-unhashed" = true))]
    pub max_skipped_steps: u64,
    /// Steps over which the mean loss is watched; 0: it is not watched.
    #[schemars(range(min = 0, max = 1_000_000), extend("x-unhashed" = true))]
    pub loss_rise_window: u32,
    /// A mean loss so many times the smallest of the stage is a rise, of which the run warns.
    #[schemars(range(min = 1.0, max = 1e6), extend("x-unhashed" = true))]
    pub loss_rise_factor: f64,
}

/// What becomes of a step whose losses, gradient or update are not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NonFiniteSteps {
    /// The run ends before the step is committed.
    #[default]
    Stop,
    /// The step is committed without a change of the parameters.
    Skip,
}

/// How the contrastive loss is differentiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GradientMode {
    /// The gradient of the global-batch loss.
    Exact,
    /// Contrastive keys carry no gradient, as in the reference implementation.
    KeysDetached,
}

impl Default for StepSettings {
    fn default() -> Self {
        Self {
            seed: 42,
            slots: 16,
            gradients: GradientMode::Exact,
            device: "cpu".into(),
            compute: Compute::F32,
            tf32: false,
            wire: Wire::F32,
            overlap: true,
            non_finite: NonFiniteSteps::Stop,
            max_skipped_steps: 10,
            loss_rise_window: 50,
            loss_rise_factor: 1.5,
        }
    }
}

impl From<GradientMode> for contrast::GradientMode {
    fn from(mode: GradientMode) -> Self {
        match mode {
            GradientMode::Exact => Self::Exact,
            GradientMode::KeysDetached => Self::KeysDetached,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_are_named_as_they_are_documented() {
        let settings: StepSettings =
            toml::from_str("wire = \"bf16\"\noverlap = false\ncompute = \"bf16\"").unwrap();
        assert_eq!((settings.wire, settings.overlap), (Wire::Bf16, false));
        assert_eq!((settings.compute, StepSettings::default().compute), (Compute::Bf16, Compute::F32));
        let error = toml::from_str::<StepSettings>("compute = \"f16\"").unwrap_err().to_string();
        assert!(error.contains("f16") && error.contains("`f32` or `bf16`"), "{error}");
        let error = toml::from_str::<StepSettings>("wire = \"f16\"").unwrap_err().to_string();
        assert!(error.contains("f16") && error.contains("`f32` or `bf16`"), "{error}");
    }
}
