//! Where the time of a step goes.

use std::time::Instant;

/// Seconds a member spent in the parts of a step, for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepTimes {
    /// The frozen encoder, the passes and the losses.
    pub forward: f64,
    /// The backward pass, and adding up the own slots.
    pub backward: f64,
    /// Waiting for the other members: features, negatives, and the gradient's sum after the backward pass.
    pub exchange: f64,
}

/// Does `work` and adds the seconds it took to `seconds`.
pub(super) fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    *seconds += started.elapsed().as_secs_f64();
    done
}
