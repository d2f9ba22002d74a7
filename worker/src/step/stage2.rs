//! A stage-2 step: captioning through the frozen language model, with the token mean of the global batch.

use blip2_dataset::{SlotBatch, StepBatch};
use blip2_model::dropout::Dropout;
use blip2_model::loss::{IGNORED, Loss, counted, cross_entropy};
use blip2_model::opt::Opt;
use blip2_model::stage2::Stage2Model;
use blip2_model::tape::Tape;
use blip2_proto::drill::DrillPhase;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::times::timed;
use super::{Members, StepParts, StepTimes, StepValues};
use crate::error::{Result, WorkerError};
use crate::state::TrainState;

const DROPOUT: &str = "dropout of stage 2";

impl StepParts {
    /// The gradient of the global batch's loss, and the values to report.
    pub(super) fn stage2_gradient(
        &self,
        state: &mut TrainState,
        members: &Members<'_>,
        step: u64,
        batch: &StepBatch,
        times: &mut StepTimes,
    ) -> Result<(Vec<f32>, StepValues)> {
        let parts = state.parts.clone();
        let plan = self.sum_plan(&parts, batch)?;
        self.rehearse(DrillPhase::Reduction, members.step);
        let buffer = std::mem::take(&mut state.spare);
        let summed = members.sum(&plan, buffer, times, |sums, times| {
            for slot in &batch.slots {
                let mut tape = Tape::segmented();
                let (loss, tokens) = timed(&mut times.forward, || {
                    let features = self.image_features(slot)?;
                    let mut dropout = self.dropout(DROPOUT, step, slot.slot);
                    self.caption_loss(state.stage2()?, features, slot, &mut dropout, &mut tape)
                })?;
                sums.push_values(vec![loss.value as f32, tokens as f32])?;
                timed(&mut times.backward, || sums.backward(state, tape, loss.objective))?;
            }
            Ok(())
        })?;
        let [loss, tokens] = summed.values[..] else {
            return Err(WorkerError::Protocol("the summed losses have another length".into()));
        };
        // Slots sum over tokens; dividing the sum makes it the mean of the global batch.
        let tokens = tokens.max(1.0);
        let mut gradients = summed.gradients;
        gradients.iter_mut().for_each(|gradient| *gradient /= tokens);
        Ok((gradients, vec![("loss", f64::from(loss / tokens)), ("tokens", f64::from(tokens))]))
    }

    /// The slot's loss summed over its tokens, and their number.
    fn caption_loss(
        &self,
        model: &Stage2Model,
        features: Tensor<3>,
        slot: &SlotBatch,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<(Loss, usize)> {
        let language_model = self.language_model()?;
        let prompt = model.forward(features, dropout, tape)?;
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
