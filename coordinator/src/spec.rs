//! What a run is: pinned inputs and the schedule of its steps.

use blip2_dataset::store::Location;

use crate::{CheckpointRecord, CoordinatorError, Result};

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
    /// Steps of each stage; 0 skips a stage.
    pub stage_steps: Vec<u64>,
    /// Global batch of each stage.
    pub stage_batch: Vec<u32>,
    /// The checkpoint to continue from.
    pub resume: Option<CheckpointRecord>,
    /// Share of unusable rows above which the run stops.
    pub max_quarantined_share: f64,
    /// Rows of the corpus whose download failed and which are passed over: shown, and no part of anything else.
    pub not_downloaded: u64,
    /// What becomes of steps whose losses, gradient or update are not finite.
    pub non_finite: NonFinitePolicy,
    /// When a rise of the loss is told.
    pub loss_rise: LossRise,
}

/// What becomes of a step whose losses, gradient or update are not finite. The parameters stay as they are in any case.
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

/// A loss is said to rise when its mean over the newest steps is larger than the smallest such mean of the stage.
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
    /// [`CoordinatorError::Setting`] or [`CoordinatorError::Checkpoint`].
    pub fn validate(&self) -> Result<()> {
        let wrong = |key, reason: &str| Err(CoordinatorError::Setting { key, reason: reason.into() });
        if !self.slots.is_power_of_two() {
            return wrong("train.slots", "must be a power of two");
        }
        if self.stage_steps.len() != self.stage_batch.len() || self.schedule().total() == 0 {
            return wrong("stage1.steps", "there is no step to do: set stage1.steps or stage2.steps");
        }
        if self.token.is_empty() {
            return wrong("token", "must not be empty");
        }
        let Some(resume) = &self.resume else { return Ok(()) };
        let differs =
            |reason: String| Err(CoordinatorError::Checkpoint { name: resume.name.clone(), reason });
        if resume.config_hash != self.config_hash {
            return differs(
                "it was written with another training configuration; use that one or start a new run".into(),
            );
        }
        if resume.manifest_hash != self.manifest_hash {
            return differs("it was written on another corpus; restore the corpus or start a new run".into());
        }
        if resume.step > self.schedule().total() {
            return differs(format!(
                "it is {} steps in, beyond the run's {}",
                resume.step,
                self.schedule().total()
            ));
        }
        resume.coverage.fits(&self.schedule(), resume.step).or_else(differs)
    }

    /// The schedule of the steps.
    pub fn schedule(&self) -> Schedule {
        Schedule::new(&self.stage_steps, &self.stage_batch)
    }
}

/// Which step belongs to which stage. Steps are numbered through all stages from 0, stages from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// (first step after the stage, global batch).
    stages: Vec<(u64, u32)>,
}

impl Schedule {
    /// A schedule of stages with these steps and global batches.
    pub fn new(steps: &[u64], batches: &[u32]) -> Self {
        let mut end = 0;
        let stages = steps.iter().zip(batches).map(|(steps, batch)| {
            end += steps;
            (end, *batch)
        });
        Self { stages: stages.collect() }
    }

    /// Number of stages, empty ones included.
    pub fn stages(&self) -> u32 {
        self.stages.len() as u32
    }

    /// The step, through all stages, that uses a sample of a stage; `None` when no step does.
    pub fn step_of(&self, stage: u32, sample: u64) -> Option<u64> {
        let index = (stage as usize).checked_sub(1).filter(|index| *index < self.stages.len())?;
        let start = index.checked_sub(1).map_or(0, |before| self.stages[before].0);
        let (end, batch) = self.stages[index];
        let step = start + sample.checked_div(u64::from(batch))?;
        (step < end).then_some(step)
    }

    /// Steps of the run.
    pub fn total(&self) -> u64 {
        self.stages.last().map_or(0, |(end, _)| *end)
    }

    /// The stage of a step; that of the last step for what lies beyond.
    pub fn stage_of(&self, step: u64) -> u32 {
        let step = step.min(self.total().saturating_sub(1));
        let stage = self.stages.iter().position(|(end, _)| *end > step);
        stage.map_or(0, |stage| stage as u32 + 1)
    }

    /// Whether a stage, not empty, ends when `committed` steps are done.
    pub fn is_stage_end(&self, committed: u64) -> bool {
        committed > 0 && self.stages.iter().any(|(end, _)| *end == committed)
    }

    /// Samples of `stage` that `committed` steps of the run have used.
    pub fn samples_of(&self, stage: u32, committed: u64) -> u64 {
        let Some(index) = (stage as usize).checked_sub(1).filter(|index| *index < self.stages.len()) else {
            return 0;
        };
        let start = index.checked_sub(1).map_or(0, |before| self.stages[before].0);
        let (end, batch) = self.stages[index];
        committed.clamp(start, end).saturating_sub(start) * u64::from(batch)
    }

    /// Samples that `committed` steps have used.
    pub fn samples(&self, committed: u64) -> u64 {
        (1..=self.stages.len() as u32).map(|stage| self.samples_of(stage, committed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other() {
        let schedule = Schedule::new(&[3, 0, 2], &[4, 9, 10]);
        let stages: Vec<u32> = (0..7).map(|step| schedule.stage_of(step)).collect();
        assert_eq!(stages, [1, 1, 1, 3, 3, 3, 3]);
        let ends: Vec<u64> = (0..7).filter(|step| schedule.is_stage_end(*step)).collect();
        assert_eq!(ends, [3, 5]);
        assert_eq!((schedule.total(), schedule.samples(2), schedule.samples(4)), (5, 8, 22));
        assert_eq!(
            (schedule.samples_of(3, 2), schedule.samples_of(3, 9), schedule.samples_of(4, 9)),
            (0, 20, 0)
        );
        assert_eq!((schedule.step_of(1, 0), schedule.step_of(1, 11)), (Some(0), Some(2)));
        assert_eq!((schedule.step_of(3, 9), schedule.step_of(3, 10)), (Some(3), Some(4)));
        assert_eq!(
            (schedule.step_of(3, 20), schedule.step_of(0, 0), schedule.step_of(4, 0)),
            (None, None, None)
        );
    }
}
