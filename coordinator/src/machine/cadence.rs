//! When the next checkpoint is due.

use std::time::Duration;

use super::state::Machine;
use crate::Cadence;

/// Shortest time between two checkpoints of the automatic cadence.
const SHORTEST: Duration = Duration::from_secs(1);

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

    /// Young's rule: what checkpoints cost and what losses would cost without them are in balance at sqrt(2 x
    /// cost x mean time between losses). Never so short that one is begun before the one before is stored.
    fn interval(&self) -> Duration {
        let between =
            (self.now.as_secs_f64() + self.checkpoints.mtbf_s) / (self.progress.losses as f64 + 1.0);
        let seconds = (2.0 * self.cost.mean_stall() * between).sqrt().max(self.cost.seconds);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).max(SHORTEST)
    }
}
