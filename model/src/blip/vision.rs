//! BLIP's image encoder: layers in the EVA layout, and a last norm on every feature.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::vision::{EVA_PREFIX, EvaConfig, EvaVit};
use blip2_model_files::error::ModelError;
use blip2_tensors::device::cast::in_f32;
use blip2_tensors::nn::layers::LayerNorm;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// The encoder of BLIP's models; its names are those of BLIP-2's, where `ln_vision` stands for the last norm.
#[derive(Module, Debug)]
pub(super) struct BlipVision {
    layers: EvaVit,
    norm: LayerNorm,
}

impl BlipVision {
    /// An encoder of zeros, to be loaded.
    pub(super) fn new(config: &EvaConfig, device: &Device) -> Self {
        Self {
            layers: EvaVit::new(config, device),
            norm: LayerNorm::new(config.width, config.layer_norm_eps, device),
        }
    }

    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`; output `[b, tokens, width]`
    pub(super) fn forward(&self, pixels: Tensor<4>) -> Result<Tensor<3>, ModelError> {
        Ok(self.norm.forward(in_f32(self.layers.forward(pixels)?)))
    }
}

impl NamedTensors for BlipVision {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.layers.visit_tensors(&join(prefix, EVA_PREFIX), visitor)?;
        self.norm.visit_tensors(&join(prefix, "ln_vision"), visitor)
    }
}
