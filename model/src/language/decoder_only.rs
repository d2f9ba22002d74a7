//! Decoder-only models: one body, whose layers and whose ends are the family's.

mod layer;
mod model;
mod search;

pub(crate) use layer::{DecoderEnds, DecoderLayer};
pub(crate) use model::DecoderOnly;

use burn::tensor::{Device, Int, Tensor};

use super::family::{FamilyConfig, FamilyModel, LanguageSizes, Names, Published};
use super::generation::{GenerateOptions, Stop, generate_until};
use super::texts::{Context, Predicted, Texts, followed_by, sum_over_labels};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::erased::{Behind, ErasedVisitor, Stopped};
use blip2_tensors::nn::tensors::{NamedTensors, join};
use blip2_tensors::train::loss::Loss;
use search::PromptDecoder;

impl<L: DecoderLayer> Published for DecoderOnly<L> {
    type Config = L::Config;
    const UNUSED: &'static [&'static str] = L::UNUSED;

    fn init(config: &L::Config, device: &Device) -> Result<Self, ModelError> {
        Self::new(config, device)
    }

    fn fitted(config: &mut L::Config, weights: WeightSource) -> WeightSource {
        if !L::is_tied(config) {
            return weights;
        }
        let [table, head] = [join(L::BODY, L::TOKENS), L::HEAD.into()];
        let weight = |name: &str| join(L::Config::NAMES.prefix, &join(name, "weight"));
        weights.with_alias(&weight(&table), &weight(&head))
    }
}

impl<L: DecoderLayer> FamilyModel for DecoderOnly<L> {
    fn names(&self) -> Names {
        L::Config::NAMES
    }

    fn sizes(&self) -> &dyn LanguageSizes {
        &self.config
    }

    fn boxed(&self) -> Box<dyn FamilyModel> {
        Box::new(self.clone())
    }

    fn grow_vocabulary(&mut self, rows: usize) {
        self.embed_tokens = self.embed_tokens.grown(rows);
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
        match written {
            None => self.forward(inputs_embeds, attention_mask),
            Some(_) => {
                let reason = "a decoder-only model scores its input, and takes no text beside it";
                Err(ModelError::input("language model", reason))
            }
        }
    }

    fn loss(
        &self,
        context: Context,
        texts: &Texts<'_>,
        dropout: &mut Dropout,
        device: &Device,
    ) -> Result<Loss, ModelError> {
        let Predicted { ids, mask, labels } = texts.predicted(device);
        let length = ids.dims()[1];
        let text = (self.embed(ids), mask);
        let before = context.as_ref().map_or(0, |(embeds, _)| embeds.dims()[1]);
        let (embeds, mask) = match context {
            Some(context) => followed_by(context, text),
            None => text,
        };
        let given = usize::from(before == 0);
        let predicted = length - given;
        let labels: Vec<i32> = labels.chunks(length).flat_map(|row| row[given..].iter().copied()).collect();
        let hidden = self.hidden(embeds, mask, dropout)?;
        let logits = self.logits_of(hidden.narrow(1, before + given - 1, predicted));
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
        let mut decoder = PromptDecoder::new(self, inputs_embeds, attention_mask);
        generate_until(&mut decoder, prompts, options, stop)
    }

    fn visit_erased(&mut self, prefix: &str, visitor: &mut dyn ErasedVisitor) -> Result<(), Stopped> {
        self.visit_tensors(prefix, &mut Behind(visitor))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use blip2_tensors::nn::cache::KeyValueCache;

    fn close(got: Tensor<3>, want: Tensor<3>) {
        let difference = (got - want).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "{difference}");
    }

    /// Tokens, of which 1 is padding, and the mask of the others.
    pub(crate) fn tokens(rows: [[i32; 5]; 2]) -> (Tensor<2, Int>, Tensor<2, Int>) {
        let ids = Tensor::<2, Int>::from_ints(rows, &Device::flex());
        let mask = ids.clone().not_equal_scalar(1).int();
        (ids, mask)
    }

    /// The cache gives what reading all of a text at once gives.
    pub(crate) fn in_pieces_as_at_once<L: DecoderLayer>(model: &DecoderOnly<L>) {
        let (ids, mask) = tokens([[1, 2, 5, 6, 7], [2, 8, 9, 3, 4]]);
        let embeds = model.embed(ids);
        let whole = model.hidden(embeds.clone(), mask.clone(), &mut Dropout::off()).unwrap();
        let mut cache = KeyValueCache::default();
        for (start, length) in [(0, 2), (2, 1), (3, 2)] {
            let part = embeds.clone().narrow(1, start, length);
            let seen = mask.clone().narrow(1, 0, start + length);
            let hidden = model.extend(part, seen, &mut cache).unwrap();
            // The first position of the first row is padding, whose output means nothing.
            let skip = usize::from(start == 0);
            let want = whole.clone().narrow(1, start + skip, length - skip);
            close(hidden.narrow(1, skip, length - skip), want);
        }
        assert_eq!(cache.length(), 5);
    }

    /// Outputs and scores of a text are the same behind padding and before it.
    pub(crate) fn padded_as_not<L: DecoderLayer>(model: &DecoderOnly<L>) {
        let (ids, mask) = tokens([[1, 1, 2, 5, 6], [2, 5, 6, 1, 1]]);
        let hidden = model.hidden(model.embed(ids), mask, &mut Dropout::off()).unwrap();
        for of_both in [hidden.clone(), model.logits_of(hidden)] {
            let left = of_both.clone().narrow(0, 0, 1).narrow(1, 2, 3);
            close(left, of_both.narrow(0, 1, 1).narrow(1, 0, 3));
        }
    }
}
