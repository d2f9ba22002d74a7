//! What checkpoints cost.

use std::collections::VecDeque;
use std::time::Duration;

/// Checkpoints over which the cost is averaged.
const WINDOW: usize = 4;
/// Seconds that a checkpoint is taken to cost while none was measured.
const ASSUMED_COST: f64 = 1.0;

/// What checkpoints cost.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// Seconds for which the newest checkpoints held the steps up.
    stalls: VecDeque<f64>,
    /// Seconds from the order to the last part, of the newest one.
    pub(super) seconds: f64,
    /// When the newest one was begun.
    pub(super) begun: Duration,
}

impl Cost {
    pub(super) fn begin(&mut self, now: Duration) {
        self.begun = now;
    }

    pub(super) fn measured(&mut self, stall: f64, seconds: f64) {
        if self.stalls.len() == WINDOW {
            self.stalls.pop_front();
        }
        self.stalls.push_back(stall.max(0.0));
        self.seconds = seconds.max(0.0);
    }

    /// Of the newest checkpoint: seconds for which the steps stood still, and until it was stored.
    pub(super) fn newest(&self) -> (f64, f64) {
        (self.stalls.back().copied().unwrap_or(0.0), self.seconds)
    }

    pub(super) fn mean_stall(&self) -> f64 {
        let sum: f64 = self.stalls.iter().sum();
        if self.stalls.is_empty() { ASSUMED_COST } else { sum / self.stalls.len() as f64 }
    }
}
