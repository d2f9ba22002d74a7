//! T5 in the form of Flan-T5, the frozen encoder-decoder language model of the generate task.

mod config;
mod decoder;
mod model;
mod relative;
mod stack;

pub use config::T5Config;
pub(crate) use model::T5;

use burn::tensor::{Device, Int, Tensor};

use super::family::{FamilyConfig, FamilyModel, LanguageSizes, Names, Published};
use super::generation::{GenerateOptions, Stop, generate_until};
use super::texts::{Context, Predicted, Texts, sum_over_labels};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::erased::{Behind, ErasedVisitor, Stopped};
use blip2_tensors::nn::tensors::{NamedTensors, join};
use blip2_tensors::train::loss::Loss;
use decoder::T5Decoder;
use model::HEAD;

impl Published for T5 {
    type Config = T5Config;

    fn init(config: &T5Config, device: &Device) -> Result<Self, ModelError> {
        Self::new(config, device)
    }

    fn fitted(config: &mut T5Config, weights: WeightSource) -> WeightSource {
        let prefixed = |name: &str| join(T5Config::NAMES.prefix, &join(name, "weight"));
        let table = prefixed("shared");
        let weights = weights
            .with_alias(&table, &prefixed("encoder.embed_tokens"))
            .with_alias(&table, &prefixed("decoder.embed_tokens"));
        config.scale_decoder_outputs = Some(config.scales_outputs());
        config.tie_word_embeddings = !weights.contains(&prefixed(HEAD));
        weights
    }
}

impl FamilyModel for T5 {
    fn names(&self) -> Names {
        T5Config::NAMES
    }

    fn sizes(&self) -> &dyn LanguageSizes {
        &self.config
    }

    fn boxed(&self) -> Box<dyn FamilyModel> {
        Box::new(self.clone())
    }

    fn grow_vocabulary(&mut self, rows: usize) {
        self.shared = self.shared.grown(rows);
        if let Some(head) = &mut self.lm_head {
            head.grow(rows);
        }
        self.config.set_vocabulary(rows);
    }

    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed(ids)
    }

    fn scores(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        written: Option<Tensor<2, Int>>,
    ) -> Result<Tensor<3>, ModelError> {
        let written = written.ok_or_else(|| {
            let reason = "an encoder-decoder scores a text that follows the input: `T5::forward` takes both";
            ModelError::input("language model", reason)
        })?;
        self.forward(inputs_embeds, attention_mask, written)
    }

    fn loss(
        &self,
        context: Context,
        texts: &Texts<'_>,
        dropout: &mut Dropout,
        device: &Device,
    ) -> Result<Loss, ModelError> {
        let (embeds, mask) = context.ok_or_else(|| {
            ModelError::input("texts", "an encoder-decoder needs a soft prompt or a prefix to read")
        })?;
        let Predicted { ids, labels, .. } = texts.predicted(device);
        // Padding on the right is never seen by the tokens before it.
        let logits = self.training_scores(embeds, mask, self.shifted_right(ids), dropout)?;
        sum_over_labels(logits, &labels, texts.weights)
    }

    fn generate(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        stop: Stop<'_>,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let start = vec![vec![self.config.decoder_start_token_id]; prompts.len()];
        let mut decoder = T5Decoder::new(self, inputs_embeds, attention_mask)?;
        generate_until(&mut decoder, &start, options, stop)
    }

    fn visit_erased(&mut self, prefix: &str, visitor: &mut dyn ErasedVisitor) -> Result<(), Stopped> {
        self.visit_tensors(prefix, &mut Behind(visitor))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::filled::filled;
    use crate::language::family;
    use crate::language::generation::{GenerateOptions, generate};
    use blip2_tensors::device::read_back::floats;
    use blip2_tensors::nn::cache::KeyValueCache;
    use blip2_tensors::train::flat::FlatLayout;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;
    use std::path::Path;

    fn config() -> T5Config {
        T5Config {
            width: 8,
            head_width: 3,
            intermediate: 12,
            depth: 2,
            decoder_depth: Some(3),
            heads: 2,
            vocab_size: 11,
            buckets: 8,
            max_distance: 20,
            feed_forward_proj: "gated-gelu".into(),
            ..T5Config::default()
        }
    }

    fn model(config: &T5Config) -> T5 {
        filled(T5::new(config, &Device::flex()).unwrap())
    }

    pub(crate) fn small() -> T5 {
        model(&config())
    }

    fn close<const D: usize>(got: Tensor<D>, want: Tensor<D>) {
        let difference = (got - want).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "{difference}");
    }

    fn ids<const N: usize>(row: [i32; N]) -> Tensor<2, Int> {
        Tensor::from_ints([row], &Device::flex())
    }

    /// Inputs of one row, where 0 is padding.
    fn inputs<const N: usize>(model: &T5, row: [i32; N]) -> (Tensor<3>, Tensor<2, Int>) {
        let ids = ids(row);
        (model.embed(ids.clone()), ids.not_equal_scalar(0).int())
    }

    #[test]
    fn writing_in_pieces_equals_writing_at_once() {
        let model = small();
        let (embeds, mask) = inputs(&model, [4, 7, 2, 9]);
        let written = ids([0, 3, 8, 8, 5]);
        let whole = model.forward(embeds.clone(), mask.clone(), written.clone()).unwrap();
        let encoded = model.encode(embeds, Some(mask), &mut Dropout::off()).unwrap();
        let mut cache = KeyValueCache::default();
        for (start, length) in [(0, 2), (2, 1), (3, 2)] {
            let hidden = model.decode(
                written.clone().narrow(1, start, length),
                &encoded,
                &mut cache,
                &mut Dropout::off(),
            );
            close(model.logits_of(hidden), whole.clone().narrow(1, start, length));
        }
    }

    #[test]
    fn padding_changes_nothing_on_either_side() {
        let model = small();
        let scores = |(embeds, mask)| model.forward(embeds, mask, ids([0, 3, 8])).unwrap();
        let alone = scores(inputs(&model, [4, 7, 2]));
        close(scores(inputs(&model, [4, 7, 2, 0, 0])), alone.clone());
        close(scores(inputs(&model, [0, 4, 7, 2])), alone.clone());
        let moved = (scores(inputs(&model, [7, 4, 2])) - alone).abs().max().into_scalar::<f32>();
        assert!(moved > 1e-3, "positions count");
    }

    #[test]
    fn a_padded_batch_continues_like_each_input_alone() {
        let model = small();
        let rows = Tensor::<2, Int>::from_ints([[0, 0, 4, 7, 2], [3, 3, 9, 1, 6]], &Device::flex());
        let (embeds, mask) = (model.embed(rows.clone()), rows.not_equal_scalar(0).int());
        for beams in [1, 3] {
            let options = GenerateOptions { max_new_tokens: 6, beams, eos: vec![1], ..Default::default() };
            let run = |embeds, mask, rows| {
                let mut decoder = T5Decoder::new(&model, embeds, mask).unwrap();
                generate(&mut decoder, &vec![vec![0]; rows], &options).unwrap()
            };
            let (first, first_mask) = inputs(&model, [4, 7, 2]);
            let (second, second_mask) = inputs(&model, [3, 3, 9, 1, 6]);
            let alone = [run(first, first_mask, 1).remove(0), run(second, second_mask, 1).remove(0)];
            assert_eq!(run(embeds.clone(), mask.clone(), 2), alone, "{beams} beams");
        }
    }

    #[test]
    fn the_first_token_follows_from_the_whole_scores() {
        let model = small();
        let (embeds, mask) = inputs(&model, [4, 7, 2]);
        let scores = floats(model.forward(embeds.clone(), mask.clone(), ids([0])).unwrap()).unwrap();
        let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        let options = GenerateOptions { max_new_tokens: 1, ..Default::default() };
        let mut decoder = T5Decoder::new(&model, embeds, mask).unwrap();
        let got = generate(&mut decoder, &[vec![0]], &options).unwrap();
        assert_eq!(got, [vec![best as u32]]);
    }

    #[test]
    fn dropout_is_where_the_reference_has_it() {
        let model = small();
        let (embeds, mask) = inputs(&model, [4, 7, 2]);
        let mut dropout = Dropout::keyed(0.1, 1);
        model.training_scores(embeds, mask, ids([0, 3]), &mut dropout).unwrap();
        // Before and behind the blocks; in a block: probabilities, output (twice in the decoder), the inner
        // and the outer of the feed-forward part.
        let (encoder, decoder) = (2 + 2 * 4, 2 + 3 * 6);
        assert_eq!(dropout.calls(), encoder + decoder);
    }

    #[test]
    fn outputs_are_scaled_where_the_configuration_says_so() {
        let scores = |scale| {
            let model = model(&T5Config { scale_decoder_outputs: scale, ..config() });
            let (embeds, mask) = inputs(&model, [4, 7, 2]);
            model.forward(embeds, mask, ids([0, 3])).unwrap()
        };
        close(scores(Some(false)) / 8f64.sqrt(), scores(Some(true)));
        close(scores(None), scores(Some(true)));
    }

    #[test]
    fn a_head_in_the_weights_is_used_whatever_the_configuration_says() {
        for untied in [false, true] {
            let mut model = model(&T5Config { tie_word_embeddings: !untied, ..config() });
            let folder = tempfile::tempdir().unwrap();
            let mut section = serde_json::to_value(config()).unwrap();
            section["model_type"] = "t5".into();
            std::fs::write(folder.path().join("config.json"), section.to_string()).unwrap();
            write(&mut model, &folder.path().join("model.safetensors"));
            let read = family::open::<T5>(folder.path(), &Device::flex()).unwrap();
            assert_eq!(read.lm_head.is_some(), untied);
            assert!(read.config().scales_outputs());
            let (embeds, mask) = inputs(&model, [4, 7, 2]);
            let want = model.logits_of(model.decode(
                ids([0, 3]),
                &model.encode(embeds.clone(), Some(mask.clone()), &mut Dropout::off()).unwrap(),
                &mut KeyValueCache::default(),
                &mut Dropout::off(),
            ));
            // The model in memory takes its scale from `tie_word_embeddings`.
            let want = if untied { want / 8f64.sqrt() } else { want };
            close(read.forward(embeds, mask, ids([0, 3])).unwrap(), want);
        }
    }

    fn write(model: &mut T5, path: &Path) {
        let layout = FlatLayout::of(model).unwrap();
        let flat = layout.read(model).unwrap();
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = (layout.tensors().iter())
            .map(|tensor| {
                let bytes = flat[tensor.range()].iter().flat_map(|value| value.to_le_bytes()).collect();
                (tensor.name.clone(), tensor.shape.clone(), bytes)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, path).unwrap();
    }
}
