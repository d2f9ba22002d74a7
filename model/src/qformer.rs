//! The Querying Transformer: BERT layers that learned queries and text share, where the queries alone
//! attend to the image (BLIP-2, arXiv 2301.12597, section 3.1).

mod attention;
mod config;
mod layer;

pub(crate) use attention::AttentionBlock;
pub use config::QFormerConfig;
pub(crate) use layer::FeedForward;
pub use layer::QFormerLayer;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use blip2_model_files::error::ModelError;
use blip2_tensors::nn::attention::BLOCKED;
use blip2_tensors::nn::attention::KeyValue;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::layers::{Embedding, LayerNorm};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};
use blip2_tensors::train::tape::{Segment, Tape};

impl QFormerConfig {
    /// A Q-Former of zeros on `device`; `with_text` adds the word and position tables and the text
    /// feed-forward parts, which the generate task drops.
    pub fn init(&self, with_text: bool, device: &Device) -> QFormer {
        QFormer {
            text: with_text.then(|| TextEmbeddings {
                word: Embedding::new(self.vocab, self.hidden, device),
                position: Embedding::new(self.max_positions, self.hidden, device),
            }),
            norm: LayerNorm::new(self.hidden, self.layer_norm_eps, device),
            layers: (0..self.layers)
                .map(|index| QFormerLayer::new(self, self.has_cross_attention(index), with_text, device))
                .collect(),
        }
    }
}

/// Word and position tables.
#[derive(Module, Debug)]
pub struct TextEmbeddings {
    /// Words; the captioning head is tied to this table.
    pub word: Embedding,
    /// Absolute positions.
    pub position: Embedding,
}

/// The Querying Transformer. Should be created with [`QFormerConfig`].
#[derive(Module, Debug)]
pub struct QFormer {
    /// Absent in the generate task.
    pub text: Option<TextEmbeddings>,
    norm: LayerNorm,
    layers: Vec<QFormerLayer>,
}

/// Keys and values of an image for each layer, `None` where the layer does not see the image.
pub type ImageKeyValues = Vec<Option<KeyValue>>;

impl QFormer {
    /// Cross-attention keys and values of `image_embeds [b, P, Dv]`, computed once for all passes.
    pub fn image_key_values(&self, image_embeds: Tensor<3>) -> ImageKeyValues {
        self.layers.iter().map(|layer| layer.image_key_value(image_embeds.clone())).collect()
    }

    /// The query-only pass. Every pass cuts `tape` behind the embeddings and behind each layer.
    ///
    /// # Shapes
    /// - queries `[b, Q, hidden]`; output `[b, Q, hidden]` and each layer's self-attention keys and values,
    ///   through which the gradient flows
    pub fn forward_queries(
        &self,
        queries: Tensor<3>,
        image: &ImageKeyValues,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> (Tensor<3>, Vec<KeyValue>) {
        let mut hidden = self.inputs(queries, dropout, tape);
        let mut cache = Vec::with_capacity(self.layers.len());
        for (index, (layer, image)) in self.layers.iter().zip(image).enumerate() {
            let (next, key_value) = layer.forward_queries(hidden, image.as_ref(), dropout);
            hidden = tape.cut(Segment::Layer(index), next);
            cache.push(key_value);
        }
        (hidden, cache)
    }

    /// How much each query attends to each position of the image in the last layer that sees it, the mean
    /// over its heads; none where no layer does.
    ///
    /// # Shapes
    /// - queries `[b, Q, hidden]`; output `[b, Q, P]`, whose rows sum to 1
    pub fn image_attention(&self, queries: Tensor<3>, image: &ImageKeyValues) -> Option<Tensor<3>> {
        let (dropout, tape) = (&mut Dropout::off(), &mut Tape::whole());
        let mut hidden = self.inputs(queries, dropout, tape);
        let mut attention = None;
        for (layer, image) in self.layers.iter().zip(image) {
            attention = layer.image_attention(hidden.clone(), image.as_ref()).or(attention);
            hidden = layer.forward_queries(hidden, image.as_ref(), dropout).0;
        }
        attention
    }

    /// The text-only bidirectional pass.
    ///
    /// # Shapes
    /// - ids and mask `[b, T]` (1: a token, 0: padding); output `[b, T, hidden]`
    pub fn forward_text(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Tensor<3>, ModelError> {
        let mask = key_mask(mask);
        let mut hidden = self.inputs(self.embed(ids)?, dropout, tape);
        for (index, layer) in self.layers.iter().enumerate() {
            let next = layer.forward_text(hidden, None, Some(mask.clone()), dropout);
            hidden = tape.cut(Segment::Layer(index), next);
        }
        Ok(hidden)
    }

    /// Queries and text together, each seeing all of the other: the matching pass.
    ///
    /// # Shapes
    /// - queries `[b, Q, hidden]`, ids and mask `[b, T]`; output: the queries' rows `[b, Q, hidden]`
    pub fn forward_joint(
        &self,
        queries: Tensor<3>,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
        image: &ImageKeyValues,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Tensor<3>, ModelError> {
        let [batch, count, _] = queries.dims();
        let queries_mask = Tensor::ones([batch, count], &mask.device());
        let mask = key_mask(Tensor::cat(vec![queries_mask, mask], 1));
        let joined = Tensor::cat(vec![queries, self.embed(ids)?], 1);
        let mut hidden = self.inputs(joined, dropout, tape);
        let last = self.layers.len() - 1;
        for (index, (layer, image)) in self.layers.iter().zip(image).enumerate() {
            let (mask, is_last) = (mask.clone(), index == last);
            let next = layer.forward_joint(hidden, count, image.as_ref(), mask, is_last, dropout);
            hidden = tape.cut(Segment::Layer(index), next);
        }
        Ok(hidden)
    }

    /// Text that sees the queries through their cached keys and values, and earlier text: captioning.
    ///
    /// Since queries never see text under this mask, it equals the one-pass computation.
    ///
    /// # Shapes
    /// - ids and mask `[b, T]`; output `[b, T, hidden]`
    pub fn forward_caption(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
        cache: &[KeyValue],
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Tensor<3>, ModelError> {
        let [batch, length] = ids.dims();
        let queries = cache.first().map_or(0, KeyValue::length);
        let mask = caption_mask(mask, batch, queries, length);
        let mut hidden = self.inputs(self.embed(ids)?, dropout, tape);
        for (index, (layer, past)) in self.layers.iter().zip(cache).enumerate() {
            let next = layer.forward_text(hidden, Some(past), Some(mask.clone()), dropout);
            hidden = tape.cut(Segment::Layer(index), next);
        }
        Ok(hidden)
    }

    /// What enters the first layer.
    fn inputs(&self, embedded: Tensor<3>, dropout: &mut Dropout, tape: &mut Tape) -> Tensor<3> {
        tape.cut(Segment::Inputs, dropout.forward(self.norm.forward(embedded)))
    }

    fn embed(&self, ids: Tensor<2, Int>) -> Result<Tensor<3>, ModelError> {
        let [_, length] = ids.dims();
        let Some(text) = &self.text else {
            return Err(ModelError::input("text", "this Q-Former has no text tables (stage 2 drops them)"));
        };
        let positions = text.position.weight.val().dims()[0];
        if length > positions {
            return Err(ModelError::input(
                "text",
                format!("{length} tokens, but the position table has {positions} rows"),
            ));
        }
        Ok(text.word.forward(ids) + text.position.first(length))
    }
}

/// `[b, T]` of 1 and 0 to an additive mask over keys, `[b, 1, 1, T]`.
pub(crate) fn key_mask(mask: Tensor<2, Int>) -> Tensor<4> {
    ((mask.float() - 1.0) * -f64::from(BLOCKED)).unsqueeze_dims::<4>(&[1, 2])
}

/// Captioning's mask `[b, 1, T, Q + T]`: all queries, and the tokens up to one's own that are not padding.
fn caption_mask(mask: Tensor<2, Int>, batch: usize, queries: usize, length: usize) -> Tensor<4> {
    let device = mask.device();
    let causal = Tensor::<2, Int>::ones([length, length], &device).tril(0).float();
    let visible = mask.float().unsqueeze_dims::<4>(&[1, 2]) * causal.unsqueeze::<4>();
    let queries = Tensor::ones([batch, 1, length, queries], &device);
    (Tensor::cat(vec![queries, visible], 3) - 1.0) * -f64::from(BLOCKED)
}

impl NamedTensors for QFormer {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let embeddings = join(prefix, "bert.embeddings");
        if let Some(text) = &mut self.text {
            text.word.visit_tensors(&join(&embeddings, "word_embeddings"), visitor)?;
            text.position.visit_tensors(&join(&embeddings, "position_embeddings"), visitor)?;
        }
        self.norm.visit_tensors(&join(&embeddings, "LayerNorm"), visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_tensors(&join(prefix, &format!("bert.encoder.layer.{index}")), visitor)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_model_files::weights::{InitialValues, initialise};

    struct Ramp;
    impl InitialValues for Ramp {
        fn normal(&mut self, name: &str, count: usize) -> Vec<f32> {
            let salt = name.len() as f32;
            (0..count).map(|i| (i as f32 * 0.73 + salt).sin() * 20.0).collect()
        }
        fn uniform(&mut self, name: &str, count: usize) -> Vec<f32> {
            self.normal(name, count)
        }
    }

    fn small() -> (QFormerConfig, QFormer) {
        let device = Device::flex();
        let config = QFormerConfig::new(6)
            .with_hidden(16)
            .with_layers(3)
            .with_heads(2)
            .with_intermediate(24)
            .with_vocab(30)
            .with_max_positions(8)
            .with_queries(3);
        let mut qformer = config.init(true, &device);
        initialise(&mut qformer, "Qformer", &mut Ramp, &device).unwrap();
        (config, qformer)
    }

    fn inputs() -> (Tensor<3>, Tensor<3>, Tensor<2, Int>, Tensor<2, Int>) {
        let device = Device::flex();
        let image = Tensor::<1, Int>::arange(0..2 * 4 * 6, &device).float().sin().reshape([2, 4, 6]);
        let queries = Tensor::<1, Int>::arange(0..2 * 3 * 16, &device).float().cos().reshape([2, 3, 16]);
        let ids = Tensor::from_ints([[2, 9, 7, 3, 0], [2, 5, 3, 0, 0]], &device);
        let mask = Tensor::from_ints([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], &device);
        (image, queries, ids, mask)
    }

    fn max_difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a - b).abs().max().into_scalar::<f32>()
    }

    #[test]
    fn padding_token_ids_change_nothing() {
        let (_, qformer) = small();
        let (image, queries, ids, mask) = inputs();
        let image = qformer.image_key_values(image);
        let other = ids.clone().mask_fill(mask.clone().equal_scalar(0), 17);
        let run = |ids| {
            qformer
                .forward_joint(
                    queries.clone(),
                    ids,
                    mask.clone(),
                    &image,
                    &mut Dropout::off(),
                    &mut Tape::whole(),
                )
                .unwrap()
        };
        assert!(max_difference(run(ids), run(other)) < 1e-6);
    }

    #[test]
    fn matching_sees_the_text_and_the_query_pass_does_not() {
        let (_, qformer) = small();
        let (image, queries, ids, mask) = inputs();
        let image = qformer.image_key_values(image);
        let (alone, _) =
            qformer.forward_queries(queries.clone(), &image, &mut Dropout::off(), &mut Tape::whole());
        let joint = qformer
            .forward_joint(queries, ids, mask, &image, &mut Dropout::off(), &mut Tape::whole())
            .unwrap();
        assert!(max_difference(alone, joint) > 1e-4);
    }

    #[test]
    fn attention_to_the_image_is_shared_out_whole_and_follows_it() {
        let (_, qformer) = small();
        let (image, queries, ..) = inputs();
        let of = |image: Tensor<3>| {
            qformer
                .image_attention(queries.clone(), &qformer.image_key_values(image))
                .expect("a layer sees it")
        };
        let attention = of(image.clone());
        assert_eq!(attention.dims(), [2, 3, 4]);
        assert!(
            max_difference(attention.clone().sum_dim(2), Tensor::ones([2, 3, 1], &Device::flex())) < 1e-5
        );
        let turned = of(image.flip([1]));
        assert!(
            max_difference(attention.clone(), turned.clone().flip([2])) < 1e-5,
            "positions have no place of their own"
        );
        assert!(max_difference(attention, turned) > 1e-3);
    }

    #[test]
    fn captioning_is_causal() {
        let (_, qformer) = small();
        let (image, queries, ids, mask) = inputs();
        let image = qformer.image_key_values(image);
        let (_, cache) = qformer.forward_queries(queries, &image, &mut Dropout::off(), &mut Tape::whole());
        let run = |ids: Tensor<2, Int>| {
            qformer
                .forward_caption(ids, mask.clone(), &cache, &mut Dropout::off(), &mut Tape::whole())
                .unwrap()
        };
        let changed = ids.clone().slice_assign([0..2, 2..3], Tensor::from_ints([[11], [12]], &ids.device()));
        let (a, b) = (run(ids), run(changed));
        assert!(max_difference(a.clone().narrow(1, 0, 2), b.clone().narrow(1, 0, 2)) < 1e-6);
        assert!(max_difference(a.narrow(1, 2, 1), b.narrow(1, 2, 1)) > 1e-4);
    }

    #[test]
    fn text_longer_than_the_position_table_is_refused() {
        let (_, qformer) = small();
        let ids = Tensor::<2, Int>::zeros([1, 9], &Device::flex());
        let error = qformer
            .forward_text(ids.clone(), ids, &mut Dropout::off(), &mut Tape::whole())
            .unwrap_err()
            .to_string();
        assert!(error.contains("9 tokens") && error.contains("8 rows"), "{error}");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let error = QFormerConfig::new(6).with_hidden(10).with_heads(3).validate().unwrap_err().to_string();
        assert!(error.contains("multiple of heads"), "{error}");
    }
}
