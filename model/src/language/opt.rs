//! OPT, the frozen decoder-only language model of the generate task.

mod config;
mod layer;

pub use config::OptConfig;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};

use crate::device::cast::in_numbers;
use crate::device::placement::Placement;
use crate::error::ModelError;
use crate::files::config::FolderConfig;
use crate::files::weights::{Fit, WeightSource, check_beside, load};
use crate::language::CausalModel;
use crate::nn::cache::KeyValueCache;
use crate::nn::causal::{Visible, check_sequence, new_positions};
use crate::nn::dropout::Dropout;
use crate::nn::layers::{Embedding, LayerNorm, Linear, grown};
use crate::nn::tensors::{NamedTensors, TensorVisitor, join};
use layer::{LAYER_NORM_EPS, OptLayer};

/// The name under which LAVIS stores the language model.
pub const OPT_PREFIX: &str = "opt_model";

/// Rows of the position table that precede position 0.
const POSITION_OFFSET: usize = 2;

/// An OPT language model; its names start with `opt_model`.
///
/// Its tensors are plain, so that no gradient of a weight is ever computed; the gradient flows through to
/// the inputs where these are on an autodiff device.
#[derive(Module, Debug)]
pub struct Opt {
    embed_tokens: Embedding,
    embed_positions: Embedding,
    /// To the layers' width, where the tokens' vectors have another; [`Opt::project_out`] leads back.
    project_in: Option<Linear>,
    layers: Vec<OptLayer>,
    final_norm: Option<LayerNorm>,
    project_out: Option<Linear>,
    /// Absent where the token table is the output map.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: OptConfig,
}

impl Opt {
    /// A model of zeros, to be loaded.
    pub fn new(config: &OptConfig, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let positions = config.max_position_embeddings + POSITION_OFFSET;
        let (width, embed_width) = (config.width, config.embed_width());
        let between = |from, to| (from != to).then(|| Linear::new(from, to, false, device));
        Ok(Self {
            embed_tokens: Embedding::new(config.vocab_size, embed_width, device),
            embed_positions: Embedding::new(positions, width, device),
            project_in: between(embed_width, width),
            layers: (0..config.depth).map(|_| OptLayer::new(config, device)).collect(),
            final_norm: config.has_final_norm().then(|| LayerNorm::new(width, LAYER_NORM_EPS, device)),
            project_out: between(width, embed_width),
            lm_head: (!config.tie_word_embeddings)
                .then(|| Linear::new(embed_width, config.vocab_size, false, device)),
            config: config.clone(),
        })
    }

    /// Loads an `OPTForCausalLM` folder, or the language model of a BLIP-2 folder, to a `place` without autodiff.
    ///
    /// # Errors
    /// Another model, an unsupported setting, or weights that do not fit the configuration.
    pub fn open(folder: &Path, place: impl Into<Placement>) -> Result<Self, ModelError> {
        let place = place.into();
        let (mut model, source) = Self::prepare(folder, &place.device)?;
        load(&mut model, OPT_PREFIX, &source, &place)?;
        Ok(model)
    }

    /// A model of zeros and the weights that are to be loaded into it.
    fn prepare(folder: &Path, device: &Device) -> Result<(Self, WeightSource), ModelError> {
        let config = OptConfig::read(&FolderConfig::open(folder)?)?;
        let model = Self::new(&config, device)?;
        let mut source = WeightSource::open_huggingface(folder)?;
        if config.tie_word_embeddings {
            source =
                source.with_alias("opt_model.model.decoder.embed_tokens.weight", "opt_model.lm_head.weight");
        }
        Ok((model, source))
    }

    /// Requires that `open` would find every tensor in its shape; no values are read.
    pub(crate) fn check(folder: &Path) -> Result<Fit, ModelError> {
        let (mut model, source) = Self::prepare(folder, &Device::flex())?;
        check_beside(&mut model, OPT_PREFIX, &source, &[])
    }

    /// Raises the vocabulary to `rows` tokens that no text has.
    pub(crate) fn grow_vocabulary(&mut self, rows: usize) {
        self.embed_tokens = self.embed_tokens.grown(rows);
        if let Some(head) = &mut self.lm_head {
            head.weight = grown(&head.weight, rows);
        }
        self.config.vocab_size = rows;
    }

    /// The sizes and special tokens.
    pub fn config(&self) -> &OptConfig {
        &self.config
    }

    /// The tokens' vectors, without positions.
    ///
    /// # Shapes
    /// - ids `[b, T]`, each below the vocabulary's size; output `[b, T, embed width]`
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(ids)
    }

    /// Scores of every next token at every position.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, embed width]`; attention_mask `[b, S]` (1: a token, 0: padding); output
    ///   `[b, S, vocabulary]`
    pub fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        Ok(self.logits_of(self.hidden(inputs_embeds, attention_mask, &mut Dropout::off())?))
    }

    /// What [`Opt::logits_of`] maps to scores, in the numbers that the matrices are kept in; `dropout` is the reference's language model left in training
    /// mode ([`Dropout::off`] otherwise).
    ///
    /// # Shapes
    /// - inputs_embeds and output `[b, S, embed width]`; attention_mask `[b, S]` (1: a token, 0: padding)
    pub fn hidden(
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
    /// - hidden `[..., embed width]`; output `[..., vocabulary]`
    pub fn logits_of<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        match &self.lm_head {
            Some(head) => head.scores(hidden),
            None => self.embed_tokens.scores(hidden, None),
        }
    }

    /// The last layer's output, after the norm and in the embeddings' width, for positions that follow those in `cache`.
    fn read(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Option<Tensor<2, Int>>,
        cache: &mut KeyValueCache,
        dropout: &mut Dropout,
    ) -> Result<Tensor<3>, ModelError> {
        let [_, length, _] = inputs_embeds.dims();
        let x = self.with_positions(inputs_embeds, attention_mask.clone(), cache.length())?;
        let mut x = in_numbers(x, self.layers.first().map_or(DType::F32, OptLayer::kept_in));
        let visible = Visible::to_last(length, attention_mask);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, (cache, index), &visible, dropout);
        }
        let x = match &self.final_norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        Ok(projected(&self.project_out, x))
    }

    /// Adds the vectors of the positions from `past` on.
    fn with_positions(
        &self,
        inputs_embeds: Tensor<3>,
        mask: Option<Tensor<2, Int>>,
        past: usize,
    ) -> Result<Tensor<3>, ModelError> {
        let [_, length, _] = inputs_embeds.dims();
        let limit = self.config.max_position_embeddings;
        check_sequence(&inputs_embeds, mask.as_ref(), past, self.config.embed_width(), limit)?;
        let positions = new_positions(mask, past, length, &inputs_embeds.device()) + POSITION_OFFSET as i32;
        Ok(projected(&self.project_in, inputs_embeds) + self.embed_positions.forward(positions))
    }
}

fn projected(map: &Option<Linear>, x: Tensor<3>) -> Tensor<3> {
    match map {
        Some(map) => map.forward(x),
        None => x,
    }
}

impl CausalModel for Opt {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed(ids)
    }

    fn extend(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: impl Into<Option<Tensor<2, Int>>>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor<3>, ModelError> {
        self.read(inputs_embeds, attention_mask.into(), cache, &mut Dropout::off())
    }

    fn logits_of(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.logits_of(hidden)
    }
}

impl NamedTensors for Opt {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), ModelError> {
        let decoder = join(prefix, "model.decoder");
        self.embed_tokens.visit_tensors(&join(&decoder, "embed_tokens"), visitor)?;
        self.embed_positions.visit_tensors(&join(&decoder, "embed_positions"), visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_tensors(&join(&decoder, &format!("layers.{index}")), visitor)?;
        }
        for (map, name) in [(&mut self.project_in, "project_in"), (&mut self.project_out, "project_out")] {
            if let Some(map) = map {
                map.visit_tensors(&join(&decoder, name), visitor)?;
            }
        }
        if let Some(norm) = &mut self.final_norm {
            norm.visit_tensors(&join(&decoder, "final_layer_norm"), visitor)?;
        }
        match &mut self.lm_head {
            Some(head) => head.visit_tensors(&join(prefix, "lm_head"), visitor),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::device::read_back::floats;
    use crate::train::flat::tests::filled;

    fn sizes() -> OptConfig {
        OptConfig {
            width: 8,
            depth: 2,
            heads: 2,
            intermediate: 16,
            vocab_size: 11,
            max_position_embeddings: 12,
            ..OptConfig::default()
        }
    }

    pub(crate) fn small() -> Opt {
        filled(Opt::new(&sizes(), &Device::flex()).unwrap())
    }

    /// The layout of OPT-350M.
    pub(crate) fn small_350m() -> Opt {
        let config = OptConfig { embed_width: Some(4), pre_norm: false, ..sizes() };
        filled(Opt::new(&config, &Device::flex()).unwrap())
    }

    /// Scores at the second and the last of five positions, computed by `transformers`' `OPTForCausalLM` with the same
    /// weights.
    const REFERENCE_350M: [[f32; 11]; 2] = [
        [
            0.72626, -0.50735, 0.2646, -0.00942, -0.24621, 0.49026, -0.71129, 0.89889, -1.04425, 1.14055,
            -1.18325,
        ],
        [
            0.71017, -0.49366, 0.25395, -0.00232, -0.24943, 0.48946, -0.70648, 0.89031, -1.03231, 1.12581,
            -1.1664,
        ],
    ];
    const REFERENCE_WITHOUT_FINAL_NORM: [[f32; 11]; 2] = [
        [
            -3.24893, 2.25503, 7.34016, 11.0619, 12.72899, 12.03177, 9.09974, 4.47751, -0.9764, -6.24891,
            -10.3608,
        ],
        [
            -5.10337, -0.44461, 4.29676, 8.24003, 10.65278, 11.08687, 9.46165, 6.07901, 1.56723, -3.23562,
            -7.43754,
        ],
    ];

    #[test]
    fn norms_behind_the_layers_and_projected_embeddings_equal_the_reference() {
        let bare = OptConfig { no_final_norm: true, ..sizes() };
        let bare = filled(Opt::new(&bare, &Device::flex()).unwrap());
        for (model, want) in [(small_350m(), REFERENCE_350M), (bare, REFERENCE_WITHOUT_FINAL_NORM)] {
            let ids = Tensor::<2, Int>::from_ints([[2, 5, 6, 7, 8]], &Device::flex());
            let logits = model.forward(model.embed(ids.clone()), ids.ones_like()).unwrap();
            for (position, want) in [1, 4].into_iter().zip(want) {
                let want = Tensor::<1>::from_floats(want, &Device::flex()).reshape([1, 1, 11]);
                // The reference's numbers have five decimals.
                within(2e-5, logits.clone().narrow(1, position, 1), want);
            }
        }
    }

    fn close(got: Tensor<3>, want: Tensor<3>) {
        within(1e-5, got, want);
    }

    fn within(bound: f32, got: Tensor<3>, want: Tensor<3>) {
        let difference = (got - want).abs().max().into_scalar::<f32>();
        assert!(difference < bound, "{difference}");
    }

    fn tokens(rows: [[i32; 5]; 2]) -> (Tensor<2, Int>, Tensor<2, Int>) {
        let ids = Tensor::<2, Int>::from_ints(rows, &Device::flex());
        let mask = ids.clone().not_equal_scalar(1).int();
        (ids, mask)
    }

    #[test]
    fn reading_in_pieces_equals_reading_at_once() {
        for model in [small(), small_350m()] {
            in_pieces_as_at_once(&model);
        }
    }

    fn in_pieces_as_at_once(model: &Opt) {
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

    #[test]
    fn left_padding_changes_nothing() {
        let model = small();
        let (ids, mask) = tokens([[1, 1, 2, 5, 6], [2, 5, 6, 1, 1]]);
        let hidden = model.hidden(model.embed(ids), mask, &mut Dropout::off()).unwrap();
        let left = hidden.clone().narrow(0, 0, 1).narrow(1, 2, 3);
        close(left, hidden.narrow(0, 1, 1).narrow(1, 0, 3));
    }

    #[test]
    fn the_gradient_reaches_the_inputs_and_no_weight() {
        let model = small();
        let (ids, mask) = tokens([[2, 5, 6, 7, 8], [2, 8, 9, 3, 4]]);
        let embeds = Tensor::<3>::from_inner(model.embed(ids)).require_grad();
        let logits = model.forward(embeds.clone(), mask).unwrap();
        let mut gradients = logits.narrow(1, 2, 1).square().sum().backward();
        let gradient = embeds.grad_remove(&mut gradients).unwrap();
        let of = |position: usize| floats(gradient.clone().narrow(1, position, 1)).unwrap();
        assert!(of(0).iter().any(|value| value.abs() > 1e-6));
        assert!(of(3).iter().all(|value| value.abs() < 1e-6), "a later token has no influence");
        assert!(model.embed_tokens.weight.val().grad(&gradients).is_none());
    }

    #[test]
    fn sequences_beyond_the_position_table_are_refused() {
        let model = small();
        let mask = Tensor::<2, Int>::ones([1, 13], &Device::flex());
        let embeds = Tensor::<3>::zeros([1, 13, 8], &Device::flex());
        let error = model.forward(embeds, mask).unwrap_err().to_string();
        assert!(error.contains("13 positions") && error.contains("12"), "{error}");
    }
}
