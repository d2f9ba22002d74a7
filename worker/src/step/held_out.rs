//! Evaluation on held-out rows at a step's end: of the state that the step's gradient leads to, which is
//! computed beside the state that is held, so that nothing of that one changes.
//!
//! Rows go in units of fixed size. A unit is computed by one member; its numbers are gathered and added in
//! the order of the units. So the result is the same, bit for bit, for any number of members.

use std::borrow::Cow;

use blip2_collective::Received;
use blip2_evaluation::held_out::{HeldOut, Readers};
use blip2_evaluation::image_transform::resampling;
use blip2_images::transform::EvalTransform;
use bytes::Bytes;

use super::gradient::StepGradient;
use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::error::Result;
use crate::frozen_models::FrozenModels;
use crate::language::Language;
use crate::open::qformer_text;
use crate::state::TrainState;
use crate::sum::context::StepValues;
use crate::sum::peers::Peers;
use crate::sum::unit_buffers::UnitBuffers;
use crate::task::{ModelShape, TaskModel};

/// First byte of what a member gives the others that could evaluate its units, and of one that could not.
const DONE: u8 = 1;
const FAILED: u8 = 0;
/// That byte and the digest of the rows.
const HEAD: usize = 33;
/// Tokens of the shortest text that the Q-Former reads.
const SHORTEST_TEXT: usize = 3;

impl FrozenModels {
    /// Reads the held-out rows that the configuration names, with texts as `stage` has them.
    ///
    /// # Errors
    /// A file cannot be read, or fewer than two rows can be used.
    pub async fn read_held_out(&self, config: &WorkerConfig, stage: &NumberedStage) -> Result<HeldOut> {
        let images = self.images_of(stage.number);
        let resampling = resampling(&images.processor);
        let task = &stage.settings.task;
        let text_length = task.text_length().max(SHORTEST_TEXT);
        let readers = Readers {
            transform: EvalTransform { resampling, ..EvalTransform::new(images.encoder.image_size()) },
            qformer: match task.asks() {
                true => task.trained().encoder(self, stage.number)?,
                false => qformer_text(&self.model, text_length)?.0,
            },
            language_model: self.language.as_ref().and_then(Language::any_encoder),
        };
        let columns = task.columns(&config.data.columns);
        Ok(HeldOut::read(&config.eval, &columns, config.data.max_pixels, readers).await?)
    }

    /// Measures the state after `gradient` on the held-out rows; `step` counts within the stage. A member
    /// that cannot evaluate says so to the others, and all go on without numbers but how many could not.
    ///
    /// # Errors
    /// The exchange with the other members fails.
    pub fn evaluate(
        &self,
        held_out: Result<&HeldOut>,
        state: &TrainState,
        peers: &Peers<'_>,
        step: u64,
        gradient: &StepGradient,
    ) -> Result<StepValues> {
        let rank = peers.world.rank;
        let parameters = match &gradient.next {
            Some(next) => Cow::Borrowed(&next.buffers.parameters[..]),
            None => Cow::Owned(parameters_after(state, step, gradient)),
        };
        let models = state.stage.settings.model(&self.model);
        let shape =
            ModelShape { stage: state.stage.number, train: &self.train, model: &models, sizes: self.sizes };
        let model =
            held_out.and_then(|rows| Ok((rows, state.model_with(&parameters, &shape, &self.device)?)));
        let own = model.as_ref().map_err(ToString::to_string).and_then(|(rows, model)| {
            let members = peers.world.members.len();
            self.own_units(rows, model.as_ref(), rank, members).map_err(|error| error.to_string())
        });
        let buffer = own.unwrap_or_else(|error| {
            tracing::warn!(error, "held-out rows cannot be evaluated");
            vec![FAILED]
        });
        let all = gathered(peers, "held out", buffer)?;
        let agrees = |buffer: &&Bytes| {
            buffer.len() >= HEAD && buffer[0] == DONE && all[0].get(..HEAD) == Some(&buffer[..HEAD])
        };
        let failures = all.len() - all.iter().filter(agrees).count();
        if let (0, Ok((rows, model))) = (failures, &model) {
            match model.held_out_values(self, rows, &mut UnitBuffers::new(&all, HEAD)) {
                Ok(mut values) => {
                    values.push(("eval_rows", rows.rows.len() as f64));
                    return as_the_first_says(peers, values);
                }
                // The buffers are the same for all members, and so is what is wrong with them.
                Err(error) => tracing::warn!(%error, "the numbers on held-out rows are none"),
            }
        }
        tracing::warn!(failures, "members could not evaluate, or have other held-out rows");
        Ok(vec![("eval_failures", failures.max(1) as f64)])
    }

    /// What this member tells of its units: every `members`-th from `rank` on.
    fn own_units(
        &self,
        held_out: &HeldOut,
        model: &dyn TaskModel,
        rank: usize,
        members: usize,
    ) -> Result<Vec<u8>> {
        let mut buffer = vec![DONE];
        buffer.extend_from_slice(&held_out.digest);
        for (unit, rows) in held_out.units().enumerate().skip(rank).step_by(members) {
            buffer.extend_from_slice(&model.held_out_unit(self, unit, rows)?);
        }
        Ok(buffer)
    }
}

/// The parameters that applying `gradient` to `state` gives.
fn parameters_after(state: &TrainState, step: u64, gradient: &StepGradient) -> Vec<f32> {
    let (mut parameters, mut moments) = (state.parameters.clone(), state.moments.clone());
    let mut gradients = gradient.gradients.clone();
    let plan = state.landing_plan(step);
    plan.update_whole(&state.layout, gradient.clip, &mut parameters, &mut moments, &mut gradients);
    parameters
}

/// This member's buffer given to all; the buffers of all, in slot order.
fn gathered(peers: &Peers<'_>, tag: &str, own: Vec<u8>) -> Result<Vec<Bytes>> {
    let all = peers.all_gather(tag, own.into())?;
    Ok(all.into_iter().map(Received::into_bytes).collect())
}

/// The numbers as the first member has them: what is reported must be equal, whatever devices the members
/// have.
fn as_the_first_says(peers: &Peers<'_>, values: StepValues) -> Result<StepValues> {
    let own: Vec<u8> = values.iter().flat_map(|(_, value)| value.to_le_bytes()).collect();
    let all = gathered(peers, "held-out values", own)?;
    let mut first = UnitBuffers::new(&all, 0);
    values.into_iter().map(|(name, _)| Ok((name, first.float64(0)?))).collect()
}
