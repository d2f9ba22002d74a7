//! How many workers, and how long each wait may take.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CoordinatorError, Result};

/// Membership and deadlines: none of it changes a bit of the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorSettings {
    /// Workers to start with; `train` starts so many processes, and one for each card where nobody says how
    /// many.
    #[schemars(range(min = 1, max = 65_536))]
    pub workers: u32,
    /// Fewest workers to go on with; with fewer the run waits for others to join.
    #[schemars(range(min = 1, max = 65_536))]
    pub min_workers: u32,
    /// Most workers at a time, further ones are refused; 0: as many as there are slots.
    #[schemars(range(min = 0, max = 65_536))]
    pub max_workers: u32,
    /// Milliseconds between a worker's heartbeats.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub heartbeat_ms: u32,
    /// Seconds without a heartbeat after which a worker is lost.
    #[schemars(range(min = 0.002, max = 1e7))]
    pub heartbeat_timeout_s: f64,
    /// Seconds after which a step, a collective or a checkpoint without progress has failed; a step is redone
    /// without the workers that do not answer.
    #[schemars(range(min = 0.001, max = 1e7))]
    pub step_deadline_s: f64,
    /// Seconds to wait for the first workers.
    #[schemars(range(min = 0.001, max = 1e7))]
    pub join_timeout_s: f64,
    /// Seconds to wait for workers when fewer than `min_workers` are left.
    #[schemars(range(min = 0.001, max = 1e7))]
    pub rejoin_timeout_s: f64,
    /// Redone attempts of one step, with all workers alive, after which the run fails.
    #[schemars(range(min = 0, max = 1000))]
    pub max_redo: u32,
    /// Seconds that a coordinator which takes over, or a run whose state nobody present holds, waits for
    /// further workers that were in it, after the first.
    #[schemars(range(min = 0.0, max = 1e7))]
    pub rejoin_grace_s: f64,
    /// Seconds without an answer of the leading coordinator after which one that stands by takes over.
    #[schemars(range(min = 1.0, max = 1e7))]
    pub takeover_after_s: f64,
    /// Losses of one worker (by name) within `flap_window_s` after which it is refused for `cooldown_s`; 0:
    /// never.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub flap_limit: u32,
    /// Seconds within which the losses of a worker are counted.
    #[schemars(range(min = 0.0, max = 1e7))]
    pub flap_window_s: f64,
    /// Seconds for which a worker that was lost too often is refused.
    #[schemars(range(min = 0.0, max = 1e7))]
    pub cooldown_s: f64,
}

/// What decides when a checkpoint is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cadence {
    /// The number of steps.
    #[default]
    Fixed,
    /// The measured cost of a checkpoint and the mean time between losses of workers.
    Auto,
}

/// When checkpoints are written and which are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSettings {
    /// `fixed`: every `every_steps`; `auto`: by the square-root rule, sqrt(2 × seconds that a checkpoint
    /// holds the steps up × mean seconds between losses of workers), from what is measured.
    pub cadence: Cadence,
    /// Committed steps between checkpoints of the fixed cadence; 0: only at the end of a stage.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub every_steps: u64,
    /// Newest checkpoints to keep besides those at stage ends; 0: all.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub keep: u32,
    /// Seconds between losses of workers that the automatic cadence assumes before it has seen any.
    #[schemars(range(min = 1.0, max = 1e7))]
    pub mtbf_s: f64,
    /// Checkpoints in a row that could not be stored, each of which is tried again, after which the run
    /// fails.
    #[schemars(range(min = 1, max = 1000))]
    pub max_failures: u32,
}

impl Default for CoordinatorSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            min_workers: 1,
            max_workers: 0,
            heartbeat_ms: 500,
            heartbeat_timeout_s: 5.0,
            step_deadline_s: 600.0,
            join_timeout_s: 120.0,
            rejoin_timeout_s: 300.0,
            max_redo: 5,
            rejoin_grace_s: 2.0,
            takeover_after_s: 3.0,
            flap_limit: 3,
            flap_window_s: 60.0,
            cooldown_s: 30.0,
        }
    }
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { cadence: Cadence::Fixed, every_steps: 1000, keep: 3, mtbf_s: 3600.0, max_failures: 3 }
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
            ("coordinator.rejoin_grace_s", self.rejoin_grace_s, 0.0),
            ("coordinator.takeover_after_s", self.takeover_after_s, 1.0),
            ("coordinator.flap_window_s", self.flap_window_s, 0.0),
            ("coordinator.cooldown_s", self.cooldown_s, 0.0),
        ];
        seconds.into_iter().try_for_each(|(key, value, least)| check_seconds(key, value, least))
    }

    pub(crate) fn most_workers(&self, slots: u32) -> usize {
        if self.max_workers == 0 { slots as usize } else { self.max_workers.min(slots) as usize }
    }

    pub(crate) fn heartbeat_timeout(&self) -> Duration {
        seconds(self.heartbeat_timeout_s)
    }

    /// How long a collective, or a read, may make no progress.
    pub fn step_deadline(&self) -> Duration {
        seconds(self.step_deadline_s)
    }

    pub(crate) fn join_timeout(&self) -> Duration {
        seconds(self.join_timeout_s)
    }

    pub(crate) fn rejoin_timeout(&self) -> Duration {
        seconds(self.rejoin_timeout_s)
    }

    pub(crate) fn rejoin_grace(&self) -> Duration {
        seconds(self.rejoin_grace_s)
    }

    pub(crate) fn takeover_after(&self) -> Duration {
        seconds(self.takeover_after_s)
    }

    pub(crate) fn flap_window(&self) -> Duration {
        seconds(self.flap_window_s)
    }

    pub(crate) fn cooldown(&self) -> Duration {
        seconds(self.cooldown_s)
    }
}

impl CheckpointSettings {
    /// Whether the settings are usable.
    ///
    /// # Errors
    /// [`CoordinatorError::Setting`] names the key.
    pub fn validate(&self) -> Result<()> {
        if self.max_failures == 0 {
            let reason = "0; at least 1".into();
            return Err(CoordinatorError::Setting { key: "checkpoint.max_failures", reason });
        }
        check_seconds("checkpoint.mtbf_s", self.mtbf_s, 1.0)
    }
}

fn check_seconds(key: &'static str, value: f64, least: f64) -> Result<()> {
    if (least..=1e7).contains(&value) {
        return Ok(());
    }
    Err(CoordinatorError::Setting { key, reason: format!("{value}; {least} to 1e7 seconds") })
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
            ("coordinator.takeover_after_s", CoordinatorSettings { takeover_after_s: 0.0, ..good.clone() }),
            ("coordinator.cooldown_s", CoordinatorSettings { cooldown_s: -1.0, ..good.clone() }),
        ];
        for (key, settings) in cases {
            let error = settings.validate(4).expect_err(key);
            assert!(error.to_string().starts_with(key), "{error}");
        }
        CheckpointSettings::default().validate().expect("the defaults");
        for wrong in [
            CheckpointSettings { max_failures: 0, ..CheckpointSettings::default() },
            CheckpointSettings { mtbf_s: 0.0, ..CheckpointSettings::default() },
        ] {
            let error = wrong.validate().expect_err("a wrong value").to_string();
            assert!(error.starts_with("checkpoint.m"), "{error}");
        }
    }
}
