//! What a step comes to, before it is applied.

use super::non_finite::NonFinite;
use crate::sum::context::StepValues;
use crate::sum::next::NextState;
use crate::sum::times::{StepTimes, TimedPart};
use crate::sum::traffic::StepBytes;

/// The gradient of the global-batch loss, equal on every member.
pub struct StepGradient {
    /// In the state's layout, not clipped.
    pub gradients: Vec<f32>,
    /// Losses of the global batch, the gradient's global norm and the learning rate, by name.
    pub values: StepValues,
    /// Present when it is never applied: a step that is committed all the same leaves the state as it is.
    pub non_finite: Option<NonFinite>,
    /// Brings the gradient to `clip_norm`.
    pub(super) clip: f32,
    /// The state that it leads to, where that is computed already.
    pub(super) next: Option<NextState>,
    /// Where this member's time went.
    pub times: StepTimes,
    /// What this member moved.
    pub bytes: StepBytes,
    /// The parts that its time went to, one by one.
    pub parts: Vec<TimedPart>,
}
