//! What stands before OPT's layers and behind them: positions, norm, and maps between two widths.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::OptConfig;
use super::config::LAYER_NORM_EPS;
use crate::language::decoder_only::DecoderEnds;
use blip2_tensors::nn::layers::{Embedding, LayerNorm, Linear};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// Rows of the position table that precede position 0.
const POSITION_OFFSET: usize = 2;

/// Learned positions, the last norm, and maps where the tokens' vectors have another width than the layers.
#[derive(Module, Debug)]
pub(crate) struct OptEnds {
    embed_positions: Embedding,
    /// To the layers' width; [`OptEnds::project_out`] leads back.
    project_in: Option<Linear>,
    final_norm: Option<LayerNorm>,
    project_out: Option<Linear>,
}

impl DecoderEnds<OptConfig, ()> for OptEnds {
    fn new(config: &OptConfig, device: &Device) -> Self {
        let positions = config.max_position_embeddings + POSITION_OFFSET;
        let (width, embed_width) = (config.width, config.embed_width());
        let between = |from, to| (from != to).then(|| Linear::new(from, to, false, device));
        Self {
            embed_positions: Embedding::new(positions, width, device),
            project_in: between(embed_width, width),
            final_norm: config.has_final_norm().then(|| LayerNorm::new(width, LAYER_NORM_EPS, device)),
            project_out: between(width, embed_width),
        }
    }

    fn enter(&self, inputs_embeds: Tensor<3>, positions: Tensor<2, Int>, _: &OptConfig) -> (Tensor<3>, ()) {
        let positions = positions + POSITION_OFFSET as i32;
        (projected(&self.project_in, inputs_embeds) + self.embed_positions.forward(positions), ())
    }

    fn leave(&self, x: Tensor<3>) -> Tensor<3> {
        let x = match &self.final_norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        projected(&self.project_out, x)
    }

    fn visit_before<V: TensorVisitor>(&mut self, body: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.embed_positions.visit_tensors(&join(body, "embed_positions"), visitor)
    }

    fn visit_behind<V: TensorVisitor>(&mut self, body: &str, visitor: &mut V) -> Result<(), V::Error> {
        for (map, name) in [(&mut self.project_in, "project_in"), (&mut self.project_out, "project_out")] {
            if let Some(map) = map {
                map.visit_tensors(&join(body, name), visitor)?;
            }
        }
        match &mut self.final_norm {
            Some(norm) => norm.visit_tensors(&join(body, "final_layer_norm"), visitor),
            None => Ok(()),
        }
    }
}

fn projected(map: &Option<Linear>, x: Tensor<3>) -> Tensor<3> {
    match map {
        Some(map) => map.forward(x),
        None => x,
    }
}
