//! A stage-2 step: captioning through the frozen language model, with the token mean of the global batch.

use blip2_dataset::{SlotBatch, StepBatch};
use blip2_model::dropout::Dropout;
use blip2_model::loss::Loss;
use blip2_model::stage2::Stage2Model;
use blip2_model::tape::Tape;
use blip2_proto::drill::DrillPhase;
use burn::tensor::Tensor;

use super::non_finite::odd_slots;
use super::times::timed;
use super::{Computed, Members, StepParts, StepTimes};
use crate::error::{Result, WorkerError};
use crate::language::Language;
use crate::state::TrainState;

const DROPOUT: &str = "dropout of stage 2";
const LANGUAGE_DROPOUT: &str = "dropout of the language model";

impl StepParts {
    /// The gradient of the global batch's loss, and the values to report.
    pub(super) fn stage2_gradient(
        &self,
        state: &mut TrainState,
        members: &Members<'_>,
        step: u64,
        batch: &StepBatch,
        times: &mut StepTimes,
    ) -> Result<Computed> {
        let parts = state.parts.clone();
        let plan = self.sum_plan(&parts, batch)?;
        self.rehearse(DrillPhase::Reduction, members.step);
        let buffer = std::mem::take(&mut state.spare);
        let mut odd_losses = Vec::with_capacity(batch.slots.len());
        let summed = members.sum(&plan, buffer, times, |sums, times| {
            for slot in &batch.slots {
                let mut tape = Tape::segmented();
                let (loss, tokens) = timed(&mut times.forward, || {
                    let features = self.image_features(slot)?;
                    let mut dropout =
                        [self.dropout(DROPOUT, step, slot.slot), self.language_dropout(step, slot.slot)?];
                    self.caption_loss(state.stage2()?, features, slot, &mut dropout, &mut tape)
                })?;
                odd_losses.push(!(loss.value as f32).is_finite());
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
        let values = vec![("loss", f64::from(loss / tokens)), ("tokens", f64::from(tokens))];
        Ok(Computed { gradients, values, odd_slots: odd_slots(batch, |index| odd_losses[index]) })
    }

    /// The dropout of the language model, which `stage2.language_model_dropout` switches on.
    fn language_dropout(&self, step: u64, slot: u32) -> Result<Dropout> {
        let probability = match self.config.stage2.language_model_dropout {
            true => self.language()?.model.dropout(),
            false => 0.0,
        };
        Ok(self.dropout_of(probability, LANGUAGE_DROPOUT, step, slot))
    }

    /// The slot's loss summed over its tokens, and their number.
    fn caption_loss(
        &self,
        model: &Stage2Model,
        features: Tensor<3>,
        slot: &SlotBatch,
        [dropout, language_dropout]: &mut [Dropout; 2],
        tape: &mut Tape,
    ) -> Result<(Loss, usize)> {
        let language = self.language()?;
        let prompt = model.forward(features, dropout, tape)?;
        let batch = language.slot_texts(slot)?;
        let loss =
            language.model.training_loss(Some(prompt), &batch.texts(), language_dropout, &self.device)?;
        Ok((loss, batch.tokens()))
    }

    pub(crate) fn language(&self) -> Result<&Language> {
        self.language
            .as_ref()
            .ok_or_else(|| WorkerError::Configuration("model.language_model is not loaded".into()))
    }
}
