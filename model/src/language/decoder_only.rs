//! Decoder-only models: one body, whose layers and whose ends are the family's.

mod search;

use std::fmt;

use burn::tensor::{DType, Device, Int, Tensor};

use super::family::{FamilyConfig, FamilyModel, LanguageSizes, Names, Published};
use super::generation::{GenerateOptions, Stop, generate_until};
use super::texts::{Context, Texts, followed_by, sum_over_labels};
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::device::cast::in_numbers;
use blip2_tensors::nn::cache::KeyValueCache;
use blip2_tensors::nn::causal::{Visible, check_sequence, new_positions};
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::erased::{Behind, ErasedVisitor, Stopped};
use blip2_tensors::nn::layers::{Embedding, Linear, grown};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};
use blip2_tensors::train::loss::Loss;
use search::PromptDecoder;

/// The output map's name below the model's.
const HEAD: &str = "lm_head";

/// The token table's name below the body's.
const TOKENS: &str = "embed_tokens";

/// A layer of a family.
pub(crate) trait DecoderLayer: NamedTensors + fmt::Debug + Clone + Send + Sync + 'static {
    /// The family's configuration.
    type Config: FamilyConfig;

    /// What stands before the first layer and behind the last.
    type Ends: DecoderEnds<Self>;

    /// What each layer is told of the positions.
    type Positions;

    /// The name, below the model's, of what holds the token table and the layers.
    const BODY: &'static str;

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
pub(crate) trait DecoderEnds<L: DecoderLayer>: fmt::Debug + Clone + Send + Sync + 'static {
    /// Ends of zeros.
    fn new(config: &L::Config, device: &Device) -> Self;

    /// What the first layer reads, and what each is told of the positions.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, n, width]`; positions `[b or 1, n]`; output `[b, n, layer width]`
    fn enter(
        &self,
        inputs_embeds: Tensor<3>,
        positions: Tensor<2, Int>,
        config: &L::Config,
    ) -> (Tensor<3>, L::Positions);

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

/// A decoder-only language model.
///
/// Its tensors are plain, so that no gradient of a weight is ever computed; the gradient flows through to
/// the inputs where these are on an autodiff device.
#[derive(Debug, Clone)]
pub(crate) struct DecoderOnly<L: DecoderLayer> {
    pub(super) embed_tokens: Embedding,
    ends: L::Ends,
    layers: Vec<L>,
    /// Absent where the token table is the output map.
    lm_head: Option<Linear>,
    config: L::Config,
}

impl<L: DecoderLayer> DecoderOnly<L> {
    /// A model of zeros, to be loaded.
    ///
    /// # Errors
    /// LanguageSizes that no model can have.
    pub(crate) fn new(config: &L::Config, device: &Device) -> Result<Self, ModelError> {
        L::validate(config)?;
        let (width, vocabulary) = (config.width(), config.special_tokens().vocab_size);
        Ok(Self {
            embed_tokens: Embedding::new(vocabulary, width, device),
            ends: L::Ends::new(config, device),
            layers: L::stack(config, device),
            lm_head: (!L::is_tied(config)).then(|| Linear::new(width, vocabulary, false, device)),
            config: config.clone(),
        })
    }

    /// The sizes and special tokens.
    pub(crate) fn config(&self) -> &L::Config {
        &self.config
    }

    /// The tokens' vectors, without positions.
    ///
    /// # Shapes
    /// - ids `[b, T]`, each below the vocabulary's size; output `[b, T, width]`
    pub(crate) fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(ids)
    }

    /// Scores of every next token at every position.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding); output
    ///   `[b, S, vocabulary]`
    ///
    /// # Errors
    /// A sequence that does not fit the model.
    pub(crate) fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        Ok(self.logits_of(self.hidden(inputs_embeds, attention_mask, &mut Dropout::off())?))
    }

    /// What [`DecoderOnly::logits_of`] maps to scores, in the numbers that the matrices are kept in;
    /// `dropout` is the reference's language model left in training mode ([`Dropout::off`] otherwise).
    ///
    /// # Shapes
    /// - inputs_embeds and output `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding)
    ///
    /// # Errors
    /// A sequence that does not fit the model.
    pub(crate) fn hidden(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        dropout: &mut Dropout,
    ) -> Result<Tensor<3>, ModelError> {
        self.read(inputs_embeds, Some(attention_mask), &mut KeyValueCache::default(), dropout)
    }

    /// Scores of every next token, in float32.
    ///
    /// # Shapes
    /// - hidden `[b, n, width]`; output `[b, n, vocabulary]`
    pub(crate) fn logits_of(&self, hidden: Tensor<3>) -> Tensor<3> {
        match &self.lm_head {
            Some(head) => head.scores(hidden),
            None => self.embed_tokens.scores(hidden, None),
        }
    }

    /// Reads further positions after those in `cache` and adds them to it.
    ///
    /// # Shapes
    /// - inputs_embeds and output `[b, n, width]`; attention_mask of the cached and the new positions
    ///   `[b, cache.length() + n]`, or none where all of them are tokens
    pub(super) fn extend(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: impl Into<Option<Tensor<2, Int>>>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor<3>, ModelError> {
        self.read(inputs_embeds, attention_mask.into(), cache, &mut Dropout::off())
    }

    fn read(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Option<Tensor<2, Int>>,
        cache: &mut KeyValueCache,
        dropout: &mut Dropout,
    ) -> Result<Tensor<3>, ModelError> {
        let ([_, length, _], past) = (inputs_embeds.dims(), cache.length());
        let (width, limit) = (self.config.width(), self.config.max_positions());
        check_sequence(&inputs_embeds, attention_mask.as_ref(), past, width, limit)?;
        let positions = new_positions(attention_mask.clone(), past, length, &inputs_embeds.device());
        let (x, positions) = self.ends.enter(inputs_embeds, positions, &self.config);
        let mut x = in_numbers(x, self.layers.first().map_or(DType::F32, L::kept_in));
        let visible = Visible::to_last(length, attention_mask);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, (cache, index), &positions, &visible, dropout);
        }
        Ok(self.ends.leave(x))
    }
}

impl<L: DecoderLayer> NamedTensors for DecoderOnly<L> {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        let body = join(prefix, L::BODY);
        self.embed_tokens.visit_tensors(&join(&body, TOKENS), visitor)?;
        self.ends.visit_before(&body, visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_tensors(&join(&body, &format!("layers.{index}")), visitor)?;
        }
        self.ends.visit_behind(&body, visitor)?;
        match &mut self.lm_head {
            Some(head) => head.visit_tensors(&join(prefix, HEAD), visitor),
            None => Ok(()),
        }
    }
}

impl<L: DecoderLayer> Published for DecoderOnly<L> {
    type Config = L::Config;

    fn init(config: &L::Config, device: &Device) -> Result<Self, ModelError> {
        Self::new(config, device)
    }

    fn fitted(config: &mut L::Config, weights: WeightSource) -> WeightSource {
        if !L::is_tied(config) {
            return weights;
        }
        let [table, head] = [join(L::BODY, TOKENS), HEAD.into()];
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
            head.weight = grown(&head.weight, rows);
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
        let (ids, mask) = texts.tensors(texts.text, device);
        let [rows, length] = ids.dims();
        let text = (self.embed(ids), mask);
        let before = context.as_ref().map_or(0, |(embeds, _)| embeds.dims()[1]);
        let (embeds, mask) = match context {
            Some(context) => followed_by(context, text),
            None => text,
        };
        let given = usize::from(before == 0);
        let predicted = length - given;
        let labels: Vec<i32> =
            texts.labels.chunks(length).flat_map(|row| row[given..].iter().copied()).collect();
        let hidden = self.hidden(embeds, mask, dropout)?;
        let logits = self.logits_of(hidden.narrow(1, before + given - 1, predicted));
        sum_over_labels(logits, rows * predicted, &labels)
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
