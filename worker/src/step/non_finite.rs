//! Whether what a step came to is finite, found out before anybody commits it.
//!
//! Losses, the summed gradient and the state are equal on every member, so every member finds the same.

use blip2_tensors::train::optimizer::{AdamW, Magnitudes};

use crate::error::{Result, WorkerError};
use crate::state::TrainState;
use crate::sum::context::StepValues;

/// Why a gradient is never applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonFinite {
    /// Losses by name, or the first tensor of the gradient or of the update; equal on every member.
    pub term: String,
    /// Own slots that brought it about, as far as it can be told.
    pub slots: Vec<u32>,
}

/// The update that a gradient would make.
pub(crate) struct Planned<'a> {
    pub(crate) adamw: AdamW,
    /// 1 for the first of the stage.
    pub(crate) update: u64,
    pub(crate) learning_rate: f64,
    /// The gradient's norm, and the factor that clips it.
    pub(crate) norm: f64,
    pub(crate) clip: f32,
    pub(crate) gradients: &'a [f32],
}

/// What is not finite in a step, if anything: a loss, the gradient, or the state with its update.
pub(crate) fn term(state: &mut TrainState, values: &StepValues, planned: &Planned<'_>) -> Option<String> {
    let odd = |(_, value): &&(&str, f64)| !value.is_finite();
    let odd: Vec<&str> = values.iter().filter(odd).map(|(name, _)| *name).collect();
    // The sum of losses says no more than its terms.
    let terms: Vec<&str> = odd.iter().copied().filter(|name| odd.len() == 1 || *name != "loss").collect();
    if !terms.is_empty() {
        return Some(terms.join(" and "));
    }
    if !planned.norm.is_finite() {
        let odd = |range: std::ops::Range<usize>| planned.gradients[range].iter().any(|g| !g.is_finite());
        let tensor = state.layout.tensors().iter().find(|tensor| odd(tensor.range()));
        return Some(format!("gradient of {}", tensor.map_or("no tensor", |tensor| &tensor.name)));
    }
    overflow(state, planned).map(|tensor| format!("update of {tensor}"))
}

/// The first tensor that the update would make infinite. Bounds exclude it nearly always; else it is tried.
fn overflow(state: &mut TrainState, planned: &Planned<'_>) -> Option<String> {
    let Planned { adamw, update, learning_rate, norm, clip, gradients } = planned;
    let after = |before: Magnitudes| adamw.bounds_after(before, *update, *learning_rate, *norm);
    let is_safe = |magnitudes: &Option<Magnitudes>| magnitudes.is_some_and(|before| after(before).are_safe());
    if !is_safe(&state.magnitudes) {
        state.magnitudes = Some(Magnitudes::of(&state.parameters, &state.moments));
    }
    if is_safe(&state.magnitudes) {
        state.magnitudes = state.magnitudes.map(after);
        return None;
    }
    state.magnitudes = None;
    let held = (&state.parameters[..], &state.moments);
    let found = adamw.first_overflow(&state.layout, *update, *learning_rate, *clip, held, gradients);
    found.map(str::to_owned)
}

impl TrainState {
    /// Refuses a state that no step can go on from.
    pub(crate) fn check_finite(&mut self) -> Result<()> {
        let known = self.magnitudes.get_or_insert_with(|| Magnitudes::of(&self.parameters, &self.moments));
        if known.are_finite() {
            return Ok(());
        }
        let buffers = [&self.parameters, &self.moments.first, &self.moments.second];
        let odd = |range: std::ops::Range<usize>| {
            buffers.iter().any(|buffer| buffer[range.clone()].iter().any(|value| !value.is_finite()))
        };
        let tensor = self.layout.tensors().iter().find(|tensor| odd(tensor.range()));
        Err(WorkerError::NonFinite {
            place: format!("the state that stage `{}` continues from", self.stage.name()),
            tensor: tensor.map_or_else(String::new, |tensor| tensor.name.clone()),
        })
    }
}
