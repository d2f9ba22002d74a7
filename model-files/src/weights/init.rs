//! Initial values of trainable tensors, drawn by name so that no order of drawing matters.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::ModelError;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, set};

/// Where random initial values come from.
pub trait InitialValues {
    /// `count` independent standard normal values for the tensor called `name`.
    fn normal(&mut self, name: &str, count: usize) -> Vec<f32>;
    /// `count` independent values uniform in `-1..1` for the tensor called `name`.
    fn uniform(&mut self, name: &str, count: usize) -> Vec<f32>;
}

/// Standard deviation of new Q-Former weights.
const DEVIATION: f32 = 0.02;

/// How the names of an adapter's two matrices end, as `peft` has them.
pub const ADAPTER_DOWN: &str = ".lora_A.weight";
/// The other.
pub const ADAPTER_UP: &str = ".lora_B.weight";

/// Whether a tensor is one of an adapter.
pub fn is_of_adapter(name: &str) -> bool {
    [ADAPTER_DOWN, ADAPTER_UP].iter().any(|end| name.ends_with(end))
}

/// Initialises every tensor as the reference does: norms to the identity, projections and the matching
/// head uniform in `±1/√fan_in`, other biases 0, everything else N(0, 0.02²). Of an adapter (LoRA) the map
/// down is uniform in `±1/√fan_in`, as `peft` draws it, and the map up is 0: it begins as nothing.
pub fn initialise(
    model: &mut impl NamedTensors,
    prefix: &str,
    values: &mut impl InitialValues,
    device: &Device,
) -> Result<(), ModelError> {
    struct Initialise<'a, V>(&'a mut V, &'a Device, usize);
    impl<V: InitialValues> TensorVisitor for Initialise<'_, V> {
        type Error = ModelError;

        fn visit<const D: usize>(
            &mut self,
            name: &str,
            tensor: &mut Param<Tensor<D>>,
        ) -> Result<(), ModelError> {
            let shape = tensor.val().dims();
            let count = shape.iter().product();
            let values = if is_norm(name) {
                vec![if name.ends_with(".weight") { 1.0 } else { 0.0 }; count]
            } else if name.ends_with(ADAPTER_UP) {
                vec![0.0; count]
            } else if name.ends_with(ADAPTER_DOWN) {
                scaled(self.0.uniform(name, count), 1.0 / (shape[D - 1] as f32).sqrt())
            } else if is_projection(name) {
                // A projection's weight is listed before its bias: the bias uses the same fan-in.
                if D == 2 {
                    self.2 = shape[1];
                }
                scaled(self.0.uniform(name, count), 1.0 / (self.2 as f32).sqrt())
            } else if name.ends_with(".bias") {
                vec![0.0; count]
            } else {
                scaled(self.0.normal(name, count), DEVIATION)
            };
            set(tensor, TensorData::new(values, shape), self.1);
            Ok(())
        }
    }
    model.visit_tensors(prefix, &mut Initialise(values, device, 1))
}

fn is_norm(name: &str) -> bool {
    name.contains("LayerNorm.") || name.contains("ln_vision.")
}

fn is_projection(name: &str) -> bool {
    ["vision_proj.", "text_proj.", "itm_head.", "opt_proj."].iter().any(|part| name.contains(part))
}

fn scaled(mut values: Vec<f32>, scale: f32) -> Vec<f32> {
    values.iter_mut().for_each(|value| *value *= scale);
    values
}
