//! What stands before Llama's layers and behind them: the rotations of the positions, and the last norm.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::LlamaConfig;
use super::rotary::Rotations;
use crate::language::decoder_only::DecoderEnds;
use blip2_tensors::nn::layers::RmsNorm;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// The last norm.
#[derive(Module, Debug)]
pub(crate) struct LlamaEnds {
    norm: RmsNorm,
}

impl DecoderEnds<LlamaConfig, Rotations> for LlamaEnds {
    fn new(config: &LlamaConfig, device: &Device) -> Self {
        Self { norm: RmsNorm::new(config.width, config.rms_norm_eps, device) }
    }

    fn enter(
        &self,
        inputs_embeds: Tensor<3>,
        positions: Tensor<2, Int>,
        config: &LlamaConfig,
    ) -> (Tensor<3>, Rotations) {
        (inputs_embeds, Rotations::new(positions, config))
    }

    fn leave(&self, x: Tensor<3>) -> Tensor<3> {
        self.norm.forward(x)
    }

    fn visit_before<V: TensorVisitor>(&mut self, _: &str, _: &mut V) -> Result<(), V::Error> {
        Ok(())
    }

    fn visit_behind<V: TensorVisitor>(&mut self, body: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.norm.visit_tensors(&join(body, "norm"), visitor)
    }
}
