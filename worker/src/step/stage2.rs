//! A stage-2 step: captioning through the frozen language model, with the token mean of the global batch.

use blip2_collective::{SumTree, TreeAccumulator};
use blip2_dataset::{SlotBatch, StepBatch};
use blip2_model::dropout::Dropout;
use blip2_model::loss::{IGNORED, Loss, counted, cross_entropy};
use blip2_model::opt::Opt;
use blip2_model::stage2::Stage2Model;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Members, StepGradient, StepParts};
use crate::error::{Result, WorkerError};
use crate::state::TrainState;

const DROPOUT: &str = "dropout of stage 2";

/// What travels behind the gradient: the summed loss and the number of tokens.
const EXTRAS: usize = 2;

impl StepParts {
    pub(super) fn stage2_gradient(
        &self,
        state: &mut TrainState,
        members: &Members<'_>,
        step: u64,
        batch: &StepBatch,
    ) -> Result<StepGradient> {
        let slots = self.config.train.slots;
        let length = state.layout.len();
        let first = batch.slots.first().map_or(0, |slot| slot.slot);
        let mut sum = TreeAccumulator::new(&SumTree::new(slots)?, first..first + batch.slots.len() as u32);
        for slot in &batch.slots {
            let features = self.image_features(slot)?;
            let mut dropout = self.dropout(DROPOUT, step, slot.slot);
            let (loss, tokens) = self.caption_loss(state.stage2()?, features, slot, &mut dropout)?;
            let mut flat = vec![0.0; length + EXTRAS];
            let mut gradients = loss.objective.backward();
            state.take_gradients(&mut gradients, &mut flat[..length])?;
            flat[length] = loss.value as f32;
            flat[length + 1] = tokens as f32;
            sum.push(flat)?;
        }
        let mut gradients = members.sum(sum.finish()?, slots)?;
        let extras = gradients.split_off(length);
        let [loss, tokens] = extras[..] else {
            return Err(WorkerError::Protocol("the summed gradient has another length".into()));
        };
        // Slots sum over tokens; dividing the sum makes it the mean of the global batch.
        let tokens = tokens.max(1.0);
        gradients.iter_mut().for_each(|gradient| *gradient /= tokens);
        let values = vec![("loss", f64::from(loss / tokens)), ("tokens", f64::from(tokens))];
        Ok(StepGradient { gradients, values })
    }

    /// The slot's loss summed over its tokens, and their number.
    fn caption_loss(
        &self,
        model: &Stage2Model,
        features: Tensor<3>,
        slot: &SlotBatch,
        dropout: &mut Dropout,
    ) -> Result<(Loss, usize)> {
        let language_model = self.language_model()?;
        let prompt = model.forward(features, dropout)?;
        let labels = caption_labels(slot, self.prompt_tokens);
        let texts = Texts { ids: &slot.ids, mask: &slot.mask, labels: &labels, rows: slot.samples.len() };
        let loss = language_loss(language_model, Some(prompt), texts, &self.device)?;
        Ok((loss, counted(&labels)))
    }

    pub(crate) fn language_model(&self) -> Result<&Opt> {
        self.language_model
            .as_ref()
            .ok_or_else(|| WorkerError::Configuration("model.language_model is not loaded".into()))
    }
}

/// Labels of a slot's captions: every real token, except the first `prompt_tokens` of each.
fn caption_labels(slot: &SlotBatch, prompt_tokens: usize) -> Vec<i32> {
    let length = slot.ids.len() / slot.samples.len().max(1);
    let places = slot.ids.iter().zip(&slot.mask).enumerate();
    places
        .map(|(at, (id, mask))| if *mask == 0 || at % length < prompt_tokens { IGNORED } else { *id })
        .collect()
}

/// Texts of equal length, row-major `[b, T]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texts<'a> {
    /// Token ids.
    pub(crate) ids: &'a [i32],
    /// 1 for a token, 0 for padding.
    pub(crate) mask: &'a [i32],
    /// What is to be predicted at each place, or [`IGNORED`].
    pub(crate) labels: &'a [i32],
    /// Number of texts.
    pub(crate) rows: usize,
}

/// The language model's loss on texts after an optional soft prompt `[b, Q, width]`, summed over the labels.
///
/// The position before a token predicts it: with a prompt the prompt's last position predicts the first token,
/// without one the first token is given.
pub(crate) fn language_loss(
    model: &Opt,
    prompt: Option<Tensor<3>>,
    texts: Texts<'_>,
    device: &Device,
) -> Result<Loss> {
    let (rows, length) = (texts.rows, texts.ids.len() / texts.rows.max(1));
    let shape = [rows, length];
    let ids = Tensor::<2, Int>::from_data(TensorData::new(texts.ids.to_vec(), shape), device);
    let mask = Tensor::<2, Int>::from_data(TensorData::new(texts.mask.to_vec(), shape), device);
    let (embeds, mask, queries) = match prompt {
        Some(prompt) => {
            let queries = prompt.dims()[1];
            let visible = Tensor::ones([rows, queries], device);
            let embeds = Tensor::cat(vec![prompt, model.embed(ids)], 1);
            (embeds, Tensor::cat(vec![visible, mask], 1), queries)
        }
        None => (model.embed(ids), mask, 0),
    };
    let given = usize::from(queries == 0);
    let predicted = length - given;
    let labels: Vec<i32> = texts.labels.chunks(length).flat_map(|row| row[given..].iter().copied()).collect();
    let hidden = model.hidden(embeds, mask, &mut Dropout::off())?;
    let logits = model.logits_of(hidden.narrow(1, queries + given - 1, predicted));
    let classes = logits.dims()[2];
    Ok(cross_entropy(logits.reshape([rows * predicted, classes]), &labels, 0.0, 1.0)?)
}
