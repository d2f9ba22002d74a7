//! The frozen language models of the generate task, behind one interface.
//!
//! A family is its folder ([`opt`], [`llama`], [`t5`]) and a line of the registry. Decoder-only families
//! share one body (`decoder_only`) and give it their layers; [`generation`] searches for the next tokens of
//! any of them.

pub(crate) mod adaptable;
mod decoder_only;
pub(crate) mod family;
pub mod generation;
mod kept;
pub mod llama;
pub mod opt;
mod prefix;
#[cfg(test)]
pub(crate) mod published;
mod registry;
pub mod t5;
mod texts;
mod tokens;

pub use family::LanguageSizes;
pub use kept::LanguageKept;
pub use prefix::split_caption;
pub use texts::Texts;
pub use tokens::SpecialTokens;

use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use adaptable::Adaptable;
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::Fit;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::erased::visit_behind;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};
use blip2_tensors::train::loss::Loss;
use family::FamilyModel;
use generation::{GenerateOptions, Stop};
use registry::Family;
use texts::{Context, followed_by};

/// Vocabularies are raised to multiples of this.
const VOCABULARY_STEP: usize = 64;

/// A frozen language model of one of the families.
#[derive(Debug)]
pub struct LanguageModel {
    model: Box<dyn FamilyModel>,
}

impl Clone for LanguageModel {
    fn clone(&self) -> Self {
        Self { model: self.model.boxed() }
    }
}

impl<M: FamilyModel + 'static> From<M> for LanguageModel {
    fn from(model: M) -> Self {
        Self { model: Box::new(model) }
    }
}

impl LanguageModel {
    /// Loads a language model's folder, or the language model of a BLIP-2 folder, to a
    /// `place` without autodiff.
    ///
    /// # Errors
    /// A kind of model that is not one of the families, an unsupported setting, or weights that do not fit
    /// the configuration.
    pub fn open(folder: &Path, place: impl Into<Placement>) -> Result<Self, ModelError> {
        let family = Family::of_folder(&FolderConfig::open(folder)?)?;
        Ok(Self { model: (family.open)(folder, place.into())? })
    }

    /// Requires that [`LanguageModel::open`] would find every tensor in its shape; no values are read.
    ///
    /// # Errors
    /// As [`LanguageModel::open`].
    pub fn check(folder: &Path) -> Result<Fit, ModelError> {
        (Family::of_folder(&FolderConfig::open(folder)?)?.check)(folder)
    }

    /// Width of the embeddings of the language model in a folder or GGUF file; its weights are not read.
    ///
    /// # Errors
    /// A kind of model that is not one of the families, or a variant that is not supported, named with its
    /// field.
    pub fn width_of(folder: &Path) -> Result<usize, ModelError> {
        Ok(Self::sizes_of(folder)?.width())
    }

    /// Sizes of the language model in a folder or GGUF file; its weights are not read.
    ///
    /// # Errors
    /// As [`LanguageModel::width_of`].
    pub fn sizes_of(folder: &Path) -> Result<Box<dyn LanguageSizes>, ModelError> {
        let config = FolderConfig::open(folder)?;
        (Family::of_folder(&config)?.sizes)(&config)
    }

    /// A model of zeros, to be loaded or filled.
    ///
    /// # Errors
    /// Sizes that no model can have.
    pub fn zeros(sizes: &dyn LanguageSizes, device: &Device) -> Result<Self, ModelError> {
        Ok(Self { model: Family::zeros(sizes, device)? })
    }

    /// A model of zeros with the sizes of the one in a folder or GGUF file; its weights are not read, and its
    /// matrices take no memory.
    ///
    /// # Errors
    /// As [`LanguageModel::width_of`].
    pub fn outline(folder: &Path) -> Result<Self, ModelError> {
        Self::zeros(Self::sizes_of(folder)?.as_ref(), &Device::flex())
    }

    /// The maps of its layers that adapters may be for.
    pub(crate) fn adaptable(&self) -> Adaptable {
        self.model.names().adaptable
    }

    /// The dropout probability of the model's own training, for [`LanguageModel::training_loss`].
    pub fn dropout(&self) -> f64 {
        self.model.sizes().dropout()
    }

    /// The `model_type` of the family.
    pub fn model_type(&self) -> &'static str {
        self.model.names().model_type
    }

    /// The name under which LAVIS stores the model.
    pub fn prefix(&self) -> &'static str {
        self.model.names().prefix
    }

    /// Width of the embeddings.
    pub fn width(&self) -> usize {
        self.model.sizes().width()
    }

    /// Width of the layers.
    pub(crate) fn layer_width(&self) -> usize {
        self.model.sizes().layer_width()
    }

    /// Longest input in tokens.
    pub fn max_positions(&self) -> usize {
        self.model.sizes().max_positions()
    }

    /// The special tokens, and the size of the vocabulary.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.model.sizes().special_tokens()
    }

    /// Whether one part reads and another writes.
    pub fn is_encoder_decoder(&self) -> bool {
        self.decoder_start().is_some()
    }

    /// The token that the decoder of an encoder-decoder starts from.
    pub fn decoder_start(&self) -> Option<u32> {
        self.model.sizes().decoder_start()
    }

    /// The family's part of an exported `text_config`.
    pub(crate) fn section(&self) -> Result<Value, ModelError> {
        self.model.sizes().section()
    }

    /// Raises the vocabulary to at least `tokens`, in steps of 64 as published models do. The new tokens'
    /// vectors are the mean of the others.
    pub fn grow_vocabulary(&mut self, tokens: usize) {
        if tokens > self.special_tokens().vocab_size {
            self.model.grow_vocabulary(tokens.next_multiple_of(VOCABULARY_STEP));
        }
    }

    /// The tokens' vectors, without positions.
    ///
    /// # Shapes
    /// - ids `[b, T]`, each below the vocabulary's size; output `[b, T, width]`
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.model.embed(ids)
    }

    /// Scores of every next token at every position.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding); output
    ///   `[b, S, vocabulary]`
    ///
    /// # Errors
    /// An encoder-decoder, which scores what follows its input and not the input: see
    /// [`LanguageModel::scores_of_written`].
    pub fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        self.model.scores(inputs_embeds, attention_mask, None)
    }

    /// Scores of every next token at every position of the text that the decoder of an encoder-decoder has
    /// written.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding); written `[b, T]`,
    ///   starting with the start token; output `[b, T, vocabulary]`
    ///
    /// # Errors
    /// A decoder-only model.
    pub fn scores_of_written(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        written: Tensor<2, Int>,
    ) -> Result<Tensor<3>, ModelError> {
        self.model.scores(inputs_embeds, attention_mask, Some(written))
    }

    /// Continues prompts of embeddings; a text has its end token, if it reached one, as its last token.
    ///
    /// `prompts` are the prompts' token ids, which the repetition rules of decoder-only models see; a text
    /// also ends where `stop` holds for its new tokens.
    ///
    /// # Shapes
    /// - inputs_embeds `[b, S, width]`; attention_mask `[b, S]` (1: a token, 0: padding); the last position
    ///   of every row is a token, so shorter prompts are padded on the left
    pub fn generate(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        stop: Stop<'_>,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        self.model.generate(inputs_embeds, attention_mask, prompts, options, stop)
    }

    /// The cross-entropy of texts after an optional soft prompt, summed over the labels.
    ///
    /// A decoder-only model reads soft prompt, prefix and text in this order, and the position before a token
    /// predicts it; without soft prompt and prefix the first token is given. An encoder-decoder reads soft
    /// prompt and prefix, and writes the text.
    ///
    /// # Shapes
    /// - prompt `[rows, queries, width]`, through which the gradient flows; `device` is the model's
    ///
    /// # Errors
    /// Texts of unequal lengths, or none; an encoder-decoder that has nothing to read.
    pub fn caption_loss(
        &self,
        prompt: Option<Tensor<3>>,
        texts: &Texts<'_>,
        device: &Device,
    ) -> Result<Loss, ModelError> {
        self.training_loss(prompt, texts, &mut Dropout::off(), device)
    }

    /// [`LanguageModel::caption_loss`] with dropout inside the language model, as the reference trains, which
    /// leaves the frozen model in training mode; see [`LanguageModel::dropout`].
    ///
    /// # Errors
    /// Those of [`LanguageModel::caption_loss`].
    pub fn training_loss(
        &self,
        prompt: Option<Tensor<3>>,
        texts: &Texts<'_>,
        dropout: &mut Dropout,
        device: &Device,
    ) -> Result<Loss, ModelError> {
        texts.check()?;
        let context = self.context(prompt, texts, device);
        self.model.loss(context, texts, dropout, device)
    }

    fn context(&self, prompt: Option<Tensor<3>>, texts: &Texts<'_>, device: &Device) -> Context {
        let prefix = (!texts.prefix.ids.is_empty()).then(|| {
            // Positions of decoder-only models are counted from the first token; those of encoders are not.
            let positions = match self.is_encoder_decoder() {
                true => texts.prefix.computed(texts.rows),
                false => texts.prefix.computed_behind_padding(texts.rows),
            };
            let (ids, mask) = texts.prefix.tensors(texts.rows, &positions, device);
            (self.embed(ids), mask)
        });
        let prompt = prompt.map(|prompt| {
            let [rows, queries, _] = prompt.dims();
            (prompt, Tensor::ones([rows, queries], device))
        });
        match (prompt, prefix) {
            (Some(prompt), Some(prefix)) => Some(followed_by(prompt, prefix)),
            (prompt, prefix) => prompt.or(prefix),
        }
    }
}

/// Refuses a folder whose `config.json` is not that of a supported language model; reads no weights.
///
/// # Errors
/// Another kind of model, or a variant that is not supported, named with its field.
pub fn check_family(folder: &Path) -> Result<(), ModelError> {
    LanguageModel::width_of(folder).map(drop)
}

/// Refuses targets of adapters that the language model in a folder or GGUF file does not have; reads no
/// weights.
///
/// # Errors
/// A kind of model that is not one of the families, or a target that no map of its layers is called.
pub fn check_adapters(folder: &Path, targets: &[String]) -> Result<(), ModelError> {
    Family::of_folder(&FolderConfig::open(folder)?)?.check_adapters(targets)
}

impl NamedTensors for LanguageModel {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        visit_behind(visitor, |object| self.model.visit_erased(prefix, object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::padded::Padded;
    use blip2_tensors::train::loss::IGNORED;
    use burn::tensor::TensorData;

    #[test]
    fn the_configuration_chooses_the_family() {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones");
        for (folder, family, tokens) in [("opt-tiny", "opt", 4096), ("t5-scenes", "t5", 214)] {
            let model = LanguageModel::open(&assets.join(folder), Device::flex()).unwrap();
            assert_eq!((model.model_type(), model.special_tokens().vocab_size), (family, tokens));
        }
        let error = LanguageModel::open(&assets.join("bert-tiny"), Device::flex()).unwrap_err().to_string();
        assert!(error.contains("`bert`") && error.contains("opt, t5 and llama"), "{error}");
    }

    fn texts<'a>(text: &'a [i32], labels: &'a [i32], ones: &'a [i32]) -> Texts<'a> {
        let text = Padded { ids: text, mask: &ones[..text.len()] };
        Texts { rows: 1, prefix: Padded::default(), text, labels, weights: &[] }
    }

    fn models() -> [LanguageModel; 3] {
        [
            crate::language::opt::tests::small().into(),
            crate::language::llama::tests::small().into(),
            crate::language::t5::tests::small().into(),
        ]
    }

    fn wave(width: usize) -> Tensor<3> {
        Tensor::<1, Int>::arange(0..2 * width as i64, &Device::flex()).float().sin().reshape([1, 2, width])
    }

    #[test]
    fn a_prefix_is_read_and_not_predicted() {
        let device = Device::flex();
        for model in models().iter().filter(|model| !model.is_encoder_decoder()) {
            let all = texts(&[2, 5, 7, 3], &[IGNORED, IGNORED, 7, 3], &[1; 4]);
            let want = model.caption_loss(Some(wave(8)), &all, &device).unwrap().value.read().unwrap();
            let prefix = Padded { ids: &[0, 2, 5], mask: &[0, 1, 1] };
            let split = Texts { prefix, ..texts(&[7, 3], &[7, 3], &[1; 2]) };
            let got = model.caption_loss(Some(wave(8)), &split, &device).unwrap().value.read().unwrap();
            assert!((got - want).abs() < 1e-5, "{}: {got} != {want}", model.model_type());
            let ignored = texts(&[2, 5, 7, 3], &[2, 5, 7, 3], &[1; 4]);
            let whole = model.caption_loss(Some(wave(8)), &ignored, &device).unwrap().value.read().unwrap();
            assert!(whole > want + 0.1, "the prefix costs something when it is predicted");
        }
    }

    #[test]
    fn padding_of_all_texts_is_not_computed_and_changes_no_bit() {
        let device = Device::flex();
        // Longer than any of the models reads.
        const PADDING: usize = 5000;
        let mask = |tokens: usize| [vec![1; tokens], vec![0; PADDING - tokens]].concat();
        let filled = |tokens: &[i32], with: i32| [tokens, &vec![with; PADDING - tokens.len()]].concat();
        for model in models() {
            let loss = |texts: &Texts<'_>| {
                model.caption_loss(Some(wave(8)), texts, &device).unwrap().value.read().unwrap()
            };
            let short = texts(&[7, 3, 5, 2], &[7, 3, 5, IGNORED], &[1; 4]);
            let (ids, labels, mask_of_text) =
                (filled(short.text.ids, 0), filled(short.labels, IGNORED), mask(4));
            let long = Padded { ids: &ids, mask: &mask_of_text };
            assert_eq!(loss(&short), loss(&Texts { text: long, labels: &labels, ..short }));
            // Of what is read, an encoder's padding is behind it.
            let (mut ids, mut mask_of_prefix) = (filled(&[2, 5, 4, 6], 0), mask(4));
            if !model.is_encoder_decoder() {
                ids.rotate_left(4);
                mask_of_prefix.rotate_left(4);
            }
            let prefix = |ids, mask| loss(&Texts { prefix: Padded { ids, mask }, ..short });
            assert_eq!(
                prefix(&[2, 5, 4, 6], &[1; 4]),
                prefix(&ids, &mask_of_prefix),
                "{}",
                model.model_type()
            );
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let device = Device::flex();
        let plain = wave(8);
        for model in models() {
            let prefix = Padded { ids: &[2, 5], mask: &[1, 1] };
            let texts = Texts { prefix, ..texts(&[7, 3, 1], &[7, 3, IGNORED], &[1; 3]) };
            let prompt = Tensor::<3>::from_inner(plain.clone()).require_grad();
            let loss = model.caption_loss(Some(prompt.clone()), &texts, &device).unwrap();
            let gradient = prompt.grad_remove(&mut loss.objective.backward()).unwrap();
            let gradient = blip2_tensors::device::read_back::floats(gradient).unwrap();
            let values = blip2_tensors::device::read_back::floats(plain.clone()).unwrap();
            for place in [0, 5, 11] {
                let at = |delta: f32| {
                    let mut moved = values.clone();
                    moved[place] += delta;
                    let moved = Tensor::from_data(TensorData::new(moved, [1, 2, 8]), &device);
                    model.caption_loss(Some(moved), &texts, &device).unwrap().value.read().unwrap()
                };
                let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
                let got = f64::from(gradient[place]);
                let allowed = 2e-3 + 2e-2 * numeric.abs();
                let family = model.model_type();
                assert!((got - numeric).abs() < allowed, "{family}, {place}: {got} != {numeric}");
            }
        }
    }

    #[test]
    fn dropout_changes_the_loss_by_its_key() {
        let device = Device::flex();
        let [opt, _, t5] = models();
        let text = texts(&[2, 5, 7], &[2, 5, 7], &[1; 3]);
        for model in [opt, t5] {
            let prompt = || Some(wave(8));
            // A stream of masks of its own for each call.
            let loss = |dropout: &Dropout| {
                let mut dropout = dropout.clone();
                model.training_loss(prompt(), &text, &mut dropout, &device).unwrap().value.read().unwrap()
            };
            let dropped = loss(&Dropout::keyed(0.3, 1));
            assert_eq!(dropped, loss(&Dropout::keyed(0.3, 1)));
            assert_ne!(dropped, loss(&Dropout::keyed(0.3, 2)));
            assert_eq!(
                loss(&Dropout::off()),
                model.caption_loss(prompt(), &text, &device).unwrap().value.read().unwrap()
            );
        }
    }

    #[test]
    fn texts_that_do_not_fit_are_refused() {
        let device = Device::flex();
        let [opt, _, t5] = models();
        let short = texts(&[2, 5], &[2], &[1; 2]);
        let error = opt.caption_loss(None, &short, &device).unwrap_err().to_string();
        assert!(error.contains("1 labels for 2 ids"), "{error}");
        let fits = texts(&[2, 5], &[2, 5], &[1; 2]);
        assert!(opt.caption_loss(None, &fits, &device).is_ok());
        let error = t5.caption_loss(None, &fits, &device).unwrap_err().to_string();
        assert!(error.contains("to read"), "{error}");
    }
}
