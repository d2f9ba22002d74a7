//! What a run is: pinned inputs and the schedule of its steps.

use std::collections::BTreeMap;

use blip2_proto::v1::Spent;
use blip2_run::RunError;
use blip2_run::commit::CheckpointRecord;
use blip2_run::schedule::Schedule;
use blip2_store::Location;

use crate::{CoordinatorError, Result};

/// A run as the coordinator pins it.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// Name of the run.
    pub run_id: String,
    /// The run's folder.
    pub run_root: Location,
    /// The workers' configuration as TOML.
    pub config_toml: String,
    /// BLAKE3 of the training configuration.
    pub config_hash: String,
    /// BLAKE3 of the pinned corpus manifest.
    pub manifest_hash: String,
    /// Version and BLAKE3 of the executable.
    pub binary: String,
    /// What workers must show.
    pub token: String,
    /// Micro-batches of a global batch: a power of two.
    pub slots: u32,
    /// The stages and their steps.
    pub schedule: Schedule,
    /// The checkpoint to continue from.
    pub resume: Option<CheckpointRecord>,
    /// Share of unusable rows above which the run stops.
    pub max_quarantined_share: f64,
    /// Rows of the corpus whose download failed and which are passed over: shown, and no part of anything
    /// else.
    pub not_downloaded: u64,
    /// What becomes of steps whose losses, gradient or update are not finite.
    pub non_finite: NonFinitePolicy,
    /// When a rise of the loss is told.
    pub loss_rise: LossRise,
    /// What coordinators before had spent in all when they committed these steps, as far as their records are
    /// at hand: the last step before `resume`, and the newest.
    pub earlier: BTreeMap<u64, Spent>,
}

/// What becomes of a step whose losses, gradient or update are not finite. The parameters stay as they are in
/// any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NonFinitePolicy {
    /// The run ends before the step is committed.
    #[default]
    Stop,
    /// The step is committed without a change of the parameters.
    Skip {
        /// So often in the run; one step more ends it.
        at_most: u64,
    },
}

/// A loss is said to rise when its mean over the newest steps is larger than the smallest such mean of the
/// stage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossRise {
    /// Steps of a mean; 0: nothing is said.
    pub window: u32,
    /// How many times larger.
    pub factor: f64,
}

impl RunSpec {
    /// Whether the run can be run at all, and continued from its checkpoint.
    ///
    /// # Errors
    /// [`CoordinatorError::Setting`] or [`RunError::Checkpoint`].
    pub fn validate(&self) -> Result<()> {
        let wrong = |key, reason: &str| Err(CoordinatorError::Setting { key, reason: reason.into() });
        if !self.slots.is_power_of_two() {
            return wrong("train.slots", "must be a power of two");
        }
        if self.schedule.total() == 0 {
            return wrong(
                "stages",
                "there is no step to do: give one a number of steps, as stages.NAME.steps",
            );
        }
        if self.token.is_empty() {
            return wrong("token", "must not be empty");
        }
        let Some(resume) = &self.resume else { return Ok(()) };
        let differs = |reason: String| Err(RunError::Checkpoint { name: resume.name.clone(), reason }.into());
        if resume.config_hash != self.config_hash {
            return differs(
                "it was written with another training configuration; use that one or start a new run".into(),
            );
        }
        if resume.manifest_hash != self.manifest_hash {
            return differs("it was written on another corpus; restore the corpus or start a new run".into());
        }
        if resume.step > self.schedule.total() {
            return differs(format!(
                "it is {} steps in, beyond the run's {}",
                resume.step,
                self.schedule.total()
            ));
        }
        resume.coverage.fits(&self.schedule, resume.step).or_else(differs)
    }
}
