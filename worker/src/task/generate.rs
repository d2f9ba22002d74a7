//! A stage-2 step: captioning through the frozen language model, with the token mean of the global batch.

use blip2_dataset::loader::{SlotBatch, StepBatch};
use blip2_model::nn::dropout::Dropout;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::train::loss::Loss;
use blip2_model::train::tape::Tape;
use blip2_proto::drill::DrillPhase;
use burn::tensor::Tensor;

use crate::error::{Result, WorkerError};
use crate::language::Language;
use crate::state::TrainState;
use crate::step::landing::Beside;
use crate::step::non_finite::odd_slots;
use crate::step::times::Stopwatch;
use crate::step::{Computed, FrozenModels, Peers};

const STAGE: u32 = 2;

/// The place of the number of tokens among a slot's values.
const TOKENS: usize = 1;

const DROPOUT: &str = "dropout of stage 2";
const LANGUAGE_DROPOUT: &str = "dropout of the language model";

impl FrozenModels {
    /// The gradient of the global batch's loss, and the values to report.
    pub(crate) fn generate_gradient(
        &self,
        state: &mut TrainState,
        members: &Peers<'_>,
        step: u64,
        batch: &StepBatch,
        watch: &mut Stopwatch,
    ) -> Result<Computed> {
        let parts = state.parts.clone();
        let plan = self.sum_plan(&parts, batch)?;
        self.rehearse(DrillPhase::Reduction, members.step);
        let buffer = std::mem::take(&mut state.spare);
        let buffers = std::mem::take(&mut state.spare_next);
        let TrainState { model, parameters, moments, .. } = state;
        let beside = Beside { parameters, moments, buffers, device: self.device.clone().autodiff() };
        let landing = self.landing((STAGE, step), &parts, buffer, beside, Some(TOKENS));
        let landed = members.sum(&plan, landing, watch, |slots, watch| {
            for slot in &batch.slots {
                let mut tape = Tape::segmented();
                let features = watch.time(|times| &mut times.encoder, || self.image_features(slot))?;
                let (loss, tokens) = watch.time(
                    |times| &mut times.forward,
                    || {
                        let mut dropout =
                            [self.dropout(DROPOUT, step, slot.slot), self.language_dropout(step, slot.slot)?];
                        self.caption_loss(model.stage2()?, features, slot, &mut dropout, &mut tape)
                    },
                )?;
                let value = loss.value;
                slots.push_values(move || Ok(vec![value.read()? as f32, tokens as f32]))?;
                slots.backward(model, tape, loss.objective, watch)?;
            }
            Ok(())
        })?;
        let [loss, tokens] = landed.values[..] else {
            return Err(WorkerError::Protocol("the summed losses have another length".into()));
        };
        // Slots sum over tokens; dividing the sum, as the landing does, makes it the mean of the global batch.
        let tokens = tokens.max(1.0);
        let values = vec![("loss", f64::from(loss / tokens)), ("tokens", f64::from(tokens))];
        let odd_slots = odd_slots(batch, &landed.own_values);
        Ok(Computed { landed, values, odd_slots })
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
        model: &GenerateModel,
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
