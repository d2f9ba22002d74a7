//! The loss of the generate task: what a frozen language model makes of texts after a soft prompt.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{CausalModel, LanguageModel};
use crate::error::ModelError;
use crate::language::t5::T5;
use crate::nn::cache::KeyValueCache;
use crate::nn::dropout::Dropout;
use crate::train::loss::{Loss, cross_entropy};

/// Token ids and their mask (1: a token, 0: padding), row-major, all rows of one length.
#[derive(Debug, Clone, Copy, Default)]
pub struct Padded<'a> {
    /// Token ids.
    pub ids: &'a [i32],
    /// As long as `ids`.
    pub mask: &'a [i32],
}

/// The texts of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a> {
    /// Number of texts.
    pub rows: usize,
    /// What is read before each text and not predicted, or nothing; padded on the left for decoder-only
    /// models, on either side for encoders.
    pub prefix: Padded<'a>,
    /// What is predicted, padded on the right.
    pub text: Padded<'a>,
    /// The token predicted at each place of `text`, or [`IGNORED`](crate::train::loss::IGNORED).
    pub labels: &'a [i32],
}

impl Texts<'_> {
    fn check(&self) -> Result<(), ModelError> {
        let refuse = |reason: String| Err(ModelError::input("texts", reason));
        for (what, part) in [("prefix", self.prefix), ("text", self.text)] {
            let (ids, mask, rows) = (part.ids.len(), part.mask.len(), self.rows);
            if ids != mask || rows == 0 || !ids.is_multiple_of(rows) {
                return refuse(format!("{what}: {ids} ids and {mask} mask values for {rows} rows"));
            }
        }
        let (labels, ids) = (self.labels.len(), self.text.ids.len());
        if ids == 0 || labels != ids {
            return refuse(format!("{labels} labels for {ids} ids"));
        }
        Ok(())
    }

    fn tensors(&self, part: Padded<'_>, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
        let shape = [self.rows, part.ids.len() / self.rows];
        let tensor = |values: &[i32]| Tensor::from_data(TensorData::new(values.to_vec(), shape), device);
        (tensor(part.ids), tensor(part.mask))
    }
}

/// What is read before a text, with its mask; absent where nothing is.
type Context = Option<(Tensor<3>, Tensor<2, Int>)>;

impl LanguageModel {
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
        match self {
            Self::Opt(model) => {
                let hidden = |embeds, mask| model.hidden(embeds, mask, dropout);
                causal_loss(model, hidden, context, texts, device)
            }
            Self::Llama(model) => {
                let hidden = |embeds, mask| model.extend(embeds, mask, &mut KeyValueCache::default());
                causal_loss(model, hidden, context, texts, device)
            }
            Self::T5(model) => encoded_loss(model, context, texts, dropout, device),
        }
    }

    fn context(&self, prompt: Option<Tensor<3>>, texts: &Texts<'_>, device: &Device) -> Context {
        let prefix = (!texts.prefix.ids.is_empty()).then(|| {
            let (ids, mask) = texts.tensors(texts.prefix, device);
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

fn followed_by(
    (first, first_mask): (Tensor<3>, Tensor<2, Int>),
    (second, second_mask): (Tensor<3>, Tensor<2, Int>),
) -> (Tensor<3>, Tensor<2, Int>) {
    (Tensor::cat(vec![first, second], 1), Tensor::cat(vec![first_mask, second_mask], 1))
}

fn causal_loss(
    model: &impl CausalModel,
    hidden: impl FnOnce(Tensor<3>, Tensor<2, Int>) -> Result<Tensor<3>, ModelError>,
    context: Context,
    texts: &Texts<'_>,
    device: &Device,
) -> Result<Loss, ModelError> {
    let (ids, mask) = texts.tensors(texts.text, device);
    let [rows, length] = ids.dims();
    let text = (model.embed(ids), mask);
    let before = context.as_ref().map_or(0, |(embeds, _)| embeds.dims()[1]);
    let (embeds, mask) = match context {
        Some(context) => followed_by(context, text),
        None => text,
    };
    let given = usize::from(before == 0);
    let predicted = length - given;
    let labels: Vec<i32> = texts.labels.chunks(length).flat_map(|row| row[given..].iter().copied()).collect();
    let hidden = hidden(embeds, mask)?;
    let logits = model.logits_of(hidden.narrow(1, before + given - 1, predicted));
    sum_over_labels(logits, rows * predicted, &labels)
}

fn encoded_loss(
    model: &T5,
    context: Context,
    texts: &Texts<'_>,
    dropout: &mut Dropout,
    device: &Device,
) -> Result<Loss, ModelError> {
    let (embeds, mask) = context.ok_or_else(|| {
        ModelError::input("texts", "an encoder-decoder needs a soft prompt or a prefix to read")
    })?;
    let (ids, _) = texts.tensors(texts.text, device);
    let [rows, length] = ids.dims();
    // Padding on the right is never seen by the tokens before it.
    let logits = model.training_scores(embeds, mask, model.shifted_right(ids), dropout)?;
    sum_over_labels(logits, rows * length, texts.labels)
}

fn sum_over_labels(logits: Tensor<3>, rows: usize, labels: &[i32]) -> Result<Loss, ModelError> {
    let classes = logits.dims()[2];
    cross_entropy(logits.reshape([rows, classes]), labels, 0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::loss::IGNORED;

    fn texts<'a>(text: &'a [i32], labels: &'a [i32], ones: &'a [i32]) -> Texts<'a> {
        let text = Padded { ids: text, mask: &ones[..text.len()] };
        Texts { rows: 1, prefix: Padded::default(), text, labels }
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
        for model in models().iter().filter(|model| !matches!(model, LanguageModel::T5(_))) {
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
    fn the_gradient_is_that_of_the_loss() {
        let device = Device::flex();
        let plain = wave(8);
        for model in models() {
            let prefix = Padded { ids: &[2, 5], mask: &[1, 1] };
            let texts = Texts { prefix, ..texts(&[7, 3, 1], &[7, 3, IGNORED], &[1; 3]) };
            let prompt = Tensor::<3>::from_inner(plain.clone()).require_grad();
            let loss = model.caption_loss(Some(prompt.clone()), &texts, &device).unwrap();
            let gradient = prompt.grad_remove(&mut loss.objective.backward()).unwrap();
            let gradient = crate::device::read_back::floats(gradient).unwrap();
            let values = crate::device::read_back::floats(plain.clone()).unwrap();
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
            let loss = |mut dropout| {
                model.training_loss(prompt(), &text, &mut dropout, &device).unwrap().value.read().unwrap()
            };
            let dropped = loss(Dropout::keyed(0.3, 1));
            assert_eq!(dropped, loss(Dropout::keyed(0.3, 1)));
            assert_ne!(dropped, loss(Dropout::keyed(0.3, 2)));
            assert_eq!(
                loss(Dropout::off()),
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
