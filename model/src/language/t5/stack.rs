//! Encoder and decoder of T5: stacks of the same blocks, the decoder's with attention to the encoder.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use super::T5Config;
use super::relative::RelativeBias;
use blip2_tensors::device::cast::in_numbers;
use blip2_tensors::nn::attention::KeyValue;
use blip2_tensors::nn::cache::{KeyValueCache, follow};
use blip2_tensors::nn::causal::Visible;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::feed_forward::FeedForward;
use blip2_tensors::nn::layers::RmsNorm;
use blip2_tensors::nn::projections::{ProjectionSizes, Projections};
use blip2_tensors::nn::rows::moved_rows;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// An attention behind its norm; scores are not scaled.
#[derive(Module, Debug)]
struct NormedAttention {
    maps: Projections,
    norm: RmsNorm,
}

impl NormedAttention {
    fn new(config: &T5Config, device: &Device) -> Self {
        let sizes = ProjectionSizes {
            width: config.width,
            heads: config.heads,
            key_heads: config.heads,
            head_width: config.head_width,
            bias: false,
            scaled: false,
        };
        Self {
            maps: Projections::new(sizes, device),
            norm: RmsNorm::new(config.width, config.norm_eps, device),
        }
    }

    fn visit_named<V: TensorVisitor>(
        &mut self,
        prefix: &str,
        name: &str,
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        self.maps.visit_named(&join(prefix, name), ["q", "k", "v", "o"], visitor)?;
        self.norm.visit_tensors(&join(prefix, "layer_norm"), visitor)
    }
}

/// `x += attention(norm x)`, in the decoder `x += cross(norm x, encoder)`, `x += feed_forward(norm x)`.
#[derive(Module, Debug)]
struct Block {
    attention: NormedAttention,
    cross: Option<NormedAttention>,
    feed_forward: FeedForward,
    norm: RmsNorm,
}

impl Block {
    fn new(config: &T5Config, decoder: bool, device: &Device) -> Self {
        let (width, inner) = (config.width, config.intermediate);
        Self {
            attention: NormedAttention::new(config, device),
            cross: decoder.then(|| NormedAttention::new(config, device)),
            feed_forward: FeedForward::gated(width, inner, config.activation(), device),
            norm: RmsNorm::new(width, config.norm_eps, device),
        }
    }
}

impl NamedTensors for Block {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let mut layers = (0..).map(|index| join(prefix, &format!("layer.{index}")));
        let mut next = || layers.next().unwrap_or_default();
        self.attention.visit_named(&next(), "SelfAttention", visitor)?;
        if let Some(cross) = &mut self.cross {
            cross.visit_named(&next(), "EncDecAttention", visitor)?;
        }
        let last = next();
        self.feed_forward.visit_named(&join(&last, "DenseReluDense"), &["wi_0", "wi_1", "wo"], visitor)?;
        self.norm.visit_tensors(&join(&last, "layer_norm"), visitor)
    }
}

/// What the decoder sees of the encoder.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    /// Keys and values of the encoder's output for each layer of the decoder.
    pub(super) layers: Vec<KeyValue>,
    /// All of it, except padding.
    pub(super) visible: Visible,
}

impl Encoded {
    /// Makes row `i` what row `parents[i]` was.
    pub(super) fn follow(&mut self, parents: &[usize]) {
        follow(self.layers.iter_mut(), parents);
        if let Visible::Masked(mask) = &mut self.visible {
            let moved = moved_rows(parents, mask.dims()[0], &mask.device());
            *mask = moved.into_iter().fold(mask.clone(), |mask, moved| mask.select(0, moved));
        }
    }
}

/// The blocks, their relative positions (which all share), and the last norm.
#[derive(Module, Debug)]
pub(super) struct Stack {
    blocks: Vec<Block>,
    relative: RelativeBias,
    final_norm: RmsNorm,
}

impl Stack {
    pub(super) fn encoder(config: &T5Config, device: &Device) -> Self {
        Self::new(config, config.depth, false, device)
    }

    pub(super) fn decoder(config: &T5Config, device: &Device) -> Self {
        Self::new(config, config.decoder_depth(), true, device)
    }

    fn new(config: &T5Config, depth: usize, decoder: bool, device: &Device) -> Self {
        Self {
            blocks: (0..depth).map(|_| Block::new(config, decoder, device)).collect(),
            relative: RelativeBias::new(config, !decoder, device),
            final_norm: RmsNorm::new(config.width, config.norm_eps, device),
        }
    }

    /// The output for positions that follow those in `cache`, to which they are added. `dropout` is on
    /// embeddings, attention probabilities, inside and behind every part, and on the output, as in `T5Stack`
    /// in training mode.
    ///
    /// # Shapes
    /// - x and output `[b, n, width]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        visible: &Visible,
        cache: &mut KeyValueCache,
        encoded: Option<&Encoded>,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let kept_in = self.blocks.first().map_or(DType::F32, |block| block.attention.maps.kept_in());
        let mut x = in_numbers(dropout.forward(x), kept_in);
        let rows = x.dims()[1];
        let positions = cache.length() + rows;
        let bias = self.relative.scores(rows, positions);
        let visible = Visible::Masked(match visible.mask(rows, positions, &x.device()) {
            Some(mask) => bias + mask,
            None => bias,
        });
        for (index, block) in self.blocks.iter().enumerate() {
            let NormedAttention { maps, norm } = &block.attention;
            let normed = norm.forward(x.clone());
            let seen = cache.read(index, maps.key_value(normed.clone()));
            let attended = maps.attend_dropped(maps.query(normed), seen, &visible, dropout);
            x = x + dropout.forward(attended);
            if let (Some(NormedAttention { maps, norm }), Some(encoded)) = (&block.cross, encoded) {
                let query = maps.query(norm.forward(x.clone()));
                let seen = encoded.layers[index].clone();
                let attended = maps.attend_dropped(query, seen, &encoded.visible, dropout);
                x = x + dropout.forward(attended);
            }
            let inner = block.feed_forward.forward_dropped(block.norm.forward(x.clone()), dropout);
            x = x + dropout.forward(inner);
        }
        dropout.forward(self.final_norm.forward(x))
    }

    /// What the decoder's blocks attend to in the encoder's output.
    pub(super) fn key_values(&self, encoded: &Tensor<3>) -> Vec<KeyValue> {
        let cross = self.blocks.iter().filter_map(|block| block.cross.as_ref());
        cross.map(|cross| cross.maps.key_value(encoded.clone())).collect()
    }
}

impl NamedTensors for Stack {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        for (index, block) in self.blocks.iter_mut().enumerate() {
            block.visit_tensors(&join(prefix, &format!("block.{index}")), visitor)?;
        }
        let table = "block.0.layer.0.SelfAttention.relative_attention_bias";
        self.relative.visit_tensors(&join(prefix, table), visitor)?;
        self.final_norm.visit_tensors(&join(prefix, "final_layer_norm"), visitor)
    }
}
