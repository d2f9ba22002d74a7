//! How many workers, and how long each wait may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{CoordinatorError, Result};

/// Membership and deadlines: none of it changes a bit of the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorSettings {
    /// Workers the run starts with.
    pub workers: u32,
    /// With fewer the run waits for others to join.
    pub min_workers: u32,
    /// Further ones are refused; 0: as many as there are slots.
    pub max_workers: u32,
    /// Milliseconds between two signs of life of a worker.
    pub heartbeat_ms: u32,
    /// A worker silent for this many seconds is lost.
    pub heartbeat_timeout_s: f64,
    /// A step, a collective or a checkpoint that takes longer, in seconds, has failed.
    pub step_deadline_s: f64,
    /// Seconds to wait for the first workers.
    pub join_timeout_s: f64,
    /// Seconds to wait for others when fewer than `min_workers` are left.
    pub rejoin_timeout_s: f64,
    /// A step that failed this many times in a row, with all workers alive, ends the run.
    pub max_redo: u32,
}

/// When checkpoints are written and which are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSettings {
    /// Committed steps between two checkpoints; 0: at the end of a stage only.
    pub every_steps: u64,
    /// Newest checkpoints to keep, those at the end of a stage besides; 0: all.
    pub keep: u32,
}

impl Default for CoordinatorSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            min_workers: 1,
            max_workers: 0,
            heartbeat_ms: 500,
            heartbeat_timeout_s: 10.0,
            step_deadline_s: 600.0,
            join_timeout_s: 120.0,
            rejoin_timeout_s: 300.0,
            max_redo: 5,
        }
    }
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { every_steps: 1000, keep: 3 }
    }
}

impl CoordinatorSettings {
    /// Whether the settings fit each other and a run of `slots` slots.
    ///
    /// # Errors
    /// [`CoordinatorError::Setting`] names the key.
    pub fn validate(&self, slots: u32) -> Result<()> {
        let wrong = |key, reason: String| Err(CoordinatorError::Setting { key, reason });
        if self.workers == 0 || self.workers > slots {
            return wrong(
                "coordinator.workers",
                format!("{} workers for {slots} slots; 1 to {slots}", self.workers),
            );
        }
        if self.min_workers == 0 || self.min_workers > self.workers {
            return wrong("coordinator.min_workers", format!("{}; 1 to {}", self.min_workers, self.workers));
        }
        if self.max_workers != 0 && !(self.workers..=slots).contains(&self.max_workers) {
            let reason = format!("{}; 0, or {} to {slots}", self.max_workers, self.workers);
            return wrong("coordinator.max_workers", reason);
        }
        if self.heartbeat_ms == 0 {
            return wrong("coordinator.heartbeat_ms", "0; at least 1".into());
        }
        let seconds = [
            (
                "coordinator.heartbeat_timeout_s",
                self.heartbeat_timeout_s,
                2e-3 * f64::from(self.heartbeat_ms),
            ),
            ("coordinator.step_deadline_s", self.step_deadline_s, 1e-3),
            ("coordinator.join_timeout_s", self.join_timeout_s, 1e-3),
            ("coordinator.rejoin_timeout_s", self.rejoin_timeout_s, 1e-3),
        ];
        for (key, value, least) in seconds {
            if !(least..=1e7).contains(&value) {
                return wrong(key, format!("{value}; {least} to 1e7 seconds"));
            }
        }
        Ok(())
    }

    pub(crate) fn most_workers(&self, slots: u32) -> usize {
        if self.max_workers == 0 { slots as usize } else { self.max_workers.min(slots) as usize }
    }

    pub(crate) fn heartbeat_timeout(&self) -> Duration {
        seconds(self.heartbeat_timeout_s)
    }

    pub(crate) fn step_deadline(&self) -> Duration {
        seconds(self.step_deadline_s)
    }

    pub(crate) fn join_timeout(&self) -> Duration {
        seconds(self.join_timeout_s)
    }

    pub(crate) fn rejoin_timeout(&self) -> Duration {
        seconds(self.rejoin_timeout_s)
    }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_wrong_settings_are_named() {
        let good = CoordinatorSettings::default();
        good.validate(1).expect("the defaults");
        let cases = [
            ("coordinator.workers", CoordinatorSettings { workers: 5, ..good.clone() }),
            ("coordinator.min_workers", CoordinatorSettings { min_workers: 2, ..good.clone() }),
            ("coordinator.max_workers", CoordinatorSettings { max_workers: 9, ..good.clone() }),
            ("coordinator.heartbeat_ms", CoordinatorSettings { heartbeat_ms: 0, ..good.clone() }),
            (
                "coordinator.heartbeat_timeout_s",
                CoordinatorSettings { heartbeat_timeout_s: 0.1, ..good.clone() },
            ),
            (
                "coordinator.step_deadline_s",
                CoordinatorSettings { step_deadline_s: f64::NAN, ..good.clone() },
            ),
        ];
        for (key, settings) in cases {
            let error = settings.validate(4).expect_err(key);
            assert!(error.to_string().starts_with(key), "{error}");
        }
    }
}
