//! BLIP's text model: BERT, where every layer may attend to an image; one description for encoder and
//! decoder.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::by_image::RowsByImage;
use crate::qformer::{AttentionBlock, FeedForward, QFormerConfig};
use blip2_model_files::error::ModelError;
use blip2_tensors::device::read_back::ints;
use blip2_tensors::nn::attention::KeyValue;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::layers::{Embedding, LayerNorm};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};

/// Self-attention, attention to the image, feed-forward part; each with residual and norm behind it.
#[derive(Module, Debug)]
struct TextLayer {
    attention: AttentionBlock,
    cross_attention: AttentionBlock,
    feed_forward: FeedForward,
}

/// Word and position tables, and the layers.
#[derive(Module, Debug)]
pub(super) struct BlipText {
    pub(super) word: Embedding,
    position: Embedding,
    norm: LayerNorm,
    layers: Vec<TextLayer>,
}

impl BlipText {
    /// A model of zeros, to be loaded.
    pub(super) fn new(config: &QFormerConfig, device: &Device) -> Self {
        let layer = || TextLayer {
            attention: AttentionBlock::new(config, config.hidden, device),
            cross_attention: AttentionBlock::new(config, config.image_width, device),
            feed_forward: FeedForward::new(config, device),
        };
        Self {
            word: Embedding::new(config.vocab, config.hidden, device),
            position: Embedding::new(config.max_positions, config.hidden, device),
            norm: LayerNorm::new(config.hidden, config.layer_norm_eps, device),
            layers: (0..config.layers).map(|_| layer()).collect(),
        }
    }

    /// What each layer attends to in the image's features `[b, P, Dv]`.
    pub(super) fn image_key_values(&self, features: &Tensor<3>) -> Vec<KeyValue> {
        let key_value = |layer: &TextLayer| layer.cross_attention.key_value(features.clone());
        self.layers.iter().map(key_value).collect()
    }

    /// The last layer's output for positions that follow those in `cache`, to which they are added. `image`
    /// is what each layer attends to in images, and which row is about which; without it the attention to it
    /// is left out.
    ///
    /// # Shapes
    /// - ids `[b, n]`; mask, added to the scores where not all is seen, `[b, 1, n or 1, cached + n]`; output
    ///   `[b, n, hidden]`
    ///
    /// # Errors
    /// More positions than the table has, or an id outside the vocabulary.
    pub(super) fn forward(
        &self,
        ids: Tensor<2, Int>,
        mask: Option<Tensor<4>>,
        cache: &mut KeyValueCache,
        image: Option<(&[KeyValue], &RowsByImage)>,
    ) -> Result<Tensor<3>, ModelError> {
        let off = &mut Dropout::off();
        let mut x = self.norm.forward(self.embed(ids, cache.length())?);
        for (index, layer) in self.layers.iter().enumerate() {
            let own = layer.attention.key_value(x.clone());
            x = layer.attention.forward(x, &cache.read(index, own), mask.clone(), off);
            if let Some((image, by_image)) = image {
                let (arrange, restore) = (|x| by_image.group(x), |x| by_image.ungroup(x));
                x = layer.cross_attention.forward_arranged(x, &image[index], arrange, restore);
            }
            x = layer.feed_forward.forward(x, off);
        }
        Ok(x)
    }

    fn embed(&self, ids: Tensor<2, Int>, past: usize) -> Result<Tensor<3>, ModelError> {
        let [_, length] = ids.dims();
        let positions = self.position.weight.val().dims()[0];
        if length == 0 || past + length > positions {
            let reason = format!("{} tokens, the model takes 1 to {positions}", past + length);
            return Err(ModelError::input("text", reason));
        }
        let vocabulary = self.word.weight.val().dims()[0];
        let outside = |id: &i64| usize::try_from(*id).map_or(true, |id| id >= vocabulary);
        if let Some(id) = ints(ids.clone())?.into_iter().find(outside) {
            let reason = format!("token {id}, the model has {vocabulary}: is it the model's own tokenizer?");
            return Err(ModelError::input("text", reason));
        }
        Ok(self.word.forward(ids) + self.position.range(past, length))
    }
}

impl NamedTensors for BlipText {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let embeddings = join(prefix, "embeddings");
        self.word.visit_tensors(&join(&embeddings, "word_embeddings"), visitor)?;
        self.position.visit_tensors(&join(&embeddings, "position_embeddings"), visitor)?;
        self.norm.visit_tensors(&join(&embeddings, "LayerNorm"), visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let prefix = join(prefix, &format!("encoder.layer.{index}"));
            layer.attention.visit_tensors(&join(&prefix, "attention"), visitor)?;
            layer.cross_attention.visit_tensors(&join(&prefix, "crossattention"), visitor)?;
            layer.feed_forward.visit_named(&prefix, "", visitor)?;
        }
        Ok(())
    }
}
