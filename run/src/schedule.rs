//! The stages of a run, and which step belongs to which of them.

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
