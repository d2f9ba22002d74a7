//! When the next checkpoint is due.

use std::collections::VecDeque;
use std::time::Duration;

use super::Machine;
use crate::Cadence;

/// Checkpoints over which the cost is averaged.
const WINDOW: usize = 4;
/// Seconds that a checkpoint is taken to cost while none was measured.
const ASSUMED_COST: f64 = 1.0;
/// Shortest time between two checkpoints of the automatic cadence.
const SHORTEST: Duration = Duration::from_secs(1);

/// What checkpoints cost.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// Seconds for which the newest checkpoints held the steps up.
    stalls: VecDeque<f64>,
    /// Seconds from the order to the last part, of the newest one.
    seconds: f64,
    /// When the newest one was begun.
    begun: Duration,
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

    fn mean_stall(&self) -> f64 {
        let sum: f64 = self.stalls.iter().sum();
        if self.stalls.is_empty() { ASSUMED_COST } else { sum / self.stalls.len() as f64 }
    }
}

impl Machine {
    /// Whether the cadence asks for a checkpoint of the state just committed.
    pub(super) fn cadence_is_due(&self) -> bool {
        match self.checkpoints.cadence {
            Cadence::Fixed => {
                let every = self.checkpoints.every_steps;
                every > 0 && self.committed.is_multiple_of(every)
            }
            Cadence::Auto => self.now.saturating_sub(self.cost.begun) >= self.interval(),
        }
    }

    /// Young's rule: what checkpoints cost and what losses would cost without them are in balance at
    /// sqrt(2 x cost x mean time between losses). Never so short that one is begun before the one before is stored.
    fn interval(&self) -> Duration {
        let between =
            (self.now.as_secs_f64() + self.checkpoints.mtbf_s) / (self.progress.losses as f64 + 1.0);
        let seconds = (2.0 * self.cost.mean_stall() * between).sqrt().max(self.cost.seconds);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).max(SHORTEST)
    }
}
