//! What a decoder-only family brings: its layer, and its ends.

use std::fmt;

use burn::tensor::{DType, Device, Int, Tensor};

use crate::language::family::FamilyConfig;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::causal::Visible;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};

/// A layer of a family.
pub(crate) trait DecoderLayer: NamedTensors + fmt::Debug + Clone + Send + Sync + 'static {
    /// The family's configuration.
    type Config: FamilyConfig;

    /// What stands before the first layer and behind the last.
    type Ends: DecoderEnds<Self::Config, Self::Positions>;

    /// What each layer is told of the positions.
    type Positions;

    /// The name, below the model's, of what holds the token table and the layers.
    const BODY: &'static str;

    /// The token table's name below the body's.
    const TOKENS: &'static str = "embed_tokens";

    /// The name, below the body's, under which the layers are numbered.
    const LAYERS: &'static str = "layers";

    /// The output map's name below the model's.
    const HEAD: &'static str = "lm_head";

    /// Patterns of published names that no model needs: buffers that files of the family store.
    const UNUSED: &'static [&'static str] = &[];

    /// All layers of a model, of zeros.
    fn stack(config: &Self::Config, device: &Device) -> Vec<Self>;

    /// Refuses sizes that no model can have.
    fn validate(config: &Self::Config) -> Result<(), ModelError>;

    /// Whether the output map is the token table.
    fn is_tied(config: &Self::Config) -> bool;

    /// The numbers that the matrices are kept in.
    fn kept_in(&self) -> DType;

    /// The layer's output for the positions of `x`, which are added to those of layer `index` in the cache.
    ///
    /// # Shapes
    /// - x and output `[b, n, layer width]`
    fn forward(
        &self,
        x: Tensor<3>,
        cache: (&mut KeyValueCache, usize),
        positions: &Self::Positions,
        visible: &Visible,
        dropout: &mut Dropout,
    ) -> Tensor<3>;
}

/// What a family has before its first layer and behind its last.
pub(crate) trait DecoderEnds<C, P>: fmt::Debug + Clone + Send + Sync + 'static {
    /// Ends of zeros.
    fn new(config: &C, device: &Device) -> Self;

    /// What the first layer reads, and what each is told of the positions.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, n, width]`; positions `[b or 1, n]`; output `[b, n, layer width]`
    fn enter(&self, inputs_embeds: Tensor<3>, positions: Tensor<2, Int>, config: &C) -> (Tensor<3>, P);

    /// What the output map takes.
    ///
    /// # Shapes
    /// - x `[b, n, layer width]`; output `[b, n, width]`
    fn leave(&self, x: Tensor<3>) -> Tensor<3>;

    /// Visits what is listed between the token table and the layers.
    fn visit_before<V: TensorVisitor>(&mut self, body: &str, visitor: &mut V) -> Result<(), V::Error>;

    /// Visits what is listed behind the layers.
    fn visit_behind<V: TensorVisitor>(&mut self, body: &str, visitor: &mut V) -> Result<(), V::Error>;
}
