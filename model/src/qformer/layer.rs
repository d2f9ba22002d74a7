//! One layer: self-attention for all rows, cross-attention and an own feed-forward part for queries.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::attention::AttentionBlock;
use super::config::QFormerConfig;
use blip2_tensors::nn::attention::KeyValue;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::layers::{LayerNorm, Linear};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// `norm(x + dropout(down(gelu(up(x)))))`.
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

impl FeedForward {
    pub(crate) fn new(config: &QFormerConfig, device: &Device) -> Self {
        Self {
            up: Linear::new(config.hidden, config.intermediate, true, device),
            down: Linear::new(config.intermediate, config.hidden, true, device),
            norm: LayerNorm::new(config.hidden, config.layer_norm_eps, device),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<3>, dropout: &mut Dropout) -> Tensor<3> {
        let inner = self.down.forward_gelu(self.up.forward(x.clone()));
        self.norm.forward_sum(dropout.forward(inner), x)
    }

    pub(crate) fn visit_named<V: TensorVisitor>(
        &mut self,
        prefix: &str,
        suffix: &str,
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        self.up.visit_tensors(&join(prefix, &format!("intermediate{suffix}.dense")), visitor)?;
        self.down.visit_tensors(&join(prefix, &format!("output{suffix}.dense")), visitor)?;
        self.norm.visit_tensors(&join(prefix, &format!("output{suffix}.LayerNorm")), visitor)
    }
}

/// One Q-Former layer.
#[derive(Module, Debug)]
pub struct QFormerLayer {
    attention: AttentionBlock,
    cross_attention: Option<AttentionBlock>,
    text: Option<FeedForward>,
    query: FeedForward,
}

impl QFormerLayer {
    /// A layer of zeros.
    pub fn new(config: &QFormerConfig, cross_attention: bool, with_text: bool, device: &Device) -> Self {
        Self {
            attention: AttentionBlock::new(config, config.hidden, device),
            cross_attention: cross_attention.then(|| AttentionBlock::new(config, config.image_width, device)),
            text: with_text.then(|| FeedForward::new(config, device)),
            query: FeedForward::new(config, device),
        }
    }

    /// Keys and values of the image, where the layer sees it.
    pub(super) fn image_key_value(&self, image_embeds: Tensor<3>) -> Option<KeyValue> {
        self.cross_attention.as_ref().map(|cross| cross.key_value(image_embeds))
    }

    /// How much each query attends to each position of the image, where the layer sees it.
    pub(super) fn image_attention(&self, hidden: Tensor<3>, image: Option<&KeyValue>) -> Option<Tensor<3>> {
        let (cross, image) = self.cross_attention.as_ref().zip(image)?;
        let own = self.attention.key_value(hidden.clone());
        Some(cross.weights(self.attention.forward(hidden, &own, None, &mut Dropout::off()), image))
    }

    /// Queries alone; also returns their self-attention keys and values.
    pub(super) fn forward_queries(
        &self,
        hidden: Tensor<3>,
        image: Option<&KeyValue>,
        dropout: &mut Dropout,
    ) -> (Tensor<3>, KeyValue) {
        let own = self.attention.key_value(hidden.clone());
        let attended = self.attention.forward(hidden, &own, None, dropout);
        (self.finish_queries(attended, image, dropout), own)
    }

    /// Text alone, after `past` positions if given.
    pub(super) fn forward_text(
        &self,
        hidden: Tensor<3>,
        past: Option<&KeyValue>,
        mask: Option<Tensor<4>>,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let own = self.attention.key_value(hidden.clone());
        let seen = past.map_or_else(|| own.clone(), |past| past.followed_by(&own));
        let attended = self.attention.forward(hidden, &seen, mask, dropout);
        self.finish_text(attended, dropout)
    }

    /// The first `queries` rows are queries, the others text; the last layer's text rows are not computed.
    pub(super) fn forward_joint(
        &self,
        hidden: Tensor<3>,
        queries: usize,
        image: Option<&KeyValue>,
        mask: Tensor<4>,
        queries_only: bool,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let own = self.attention.key_value(hidden.clone());
        if queries_only {
            let rows = hidden.narrow(1, 0, queries);
            let attended = self.attention.forward(rows, &own, Some(mask), dropout);
            return self.finish_queries(attended, image, dropout);
        }
        let attended = self.attention.forward(hidden, &own, Some(mask), dropout);
        let length = attended.dims()[1];
        let query_rows = attended.clone().narrow(1, 0, queries);
        let text_rows = attended.narrow(1, queries, length - queries);
        let query_rows = self.finish_queries(query_rows, image, dropout);
        Tensor::cat(vec![query_rows, self.finish_text(text_rows, dropout)], 1)
    }

    fn finish_queries(
        &self,
        attended: Tensor<3>,
        image: Option<&KeyValue>,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let attended = match (&self.cross_attention, image) {
            (Some(cross), Some(image)) => cross.forward(attended, image, None, dropout),
            _ => attended,
        };
        self.query.forward(attended, dropout)
    }

    fn finish_text(&self, attended: Tensor<3>, dropout: &mut Dropout) -> Tensor<3> {
        match &self.text {
            Some(text) => text.forward(attended, dropout),
            // A Q-Former without text tables refuses text before it gets here.
            None => attended,
        }
    }
}

impl NamedTensors for QFormerLayer {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.attention.visit_tensors(&join(prefix, "attention"), visitor)?;
        if let Some(cross) = &mut self.cross_attention {
            cross.visit_tensors(&join(prefix, "crossattention"), visitor)?;
        }
        if let Some(text) = &mut self.text {
            text.visit_named(prefix, "", visitor)?;
        }
        self.query.visit_named(prefix, "_query", visitor)
    }
}
