//! The stages of a run, and which step belongs to which of them.

use std::ops::Range;

/// A stage of a run: what it is called, what it does, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name, as the configuration gives it.
    pub name: String,
    /// The name of its task.
    pub task: String,
    /// Its steps; 0 skips it.
    pub steps: u64,
    /// Its global batch.
    pub batch: u32,
}

/// Which step belongs to which stage. Steps are numbered through all stages from 0, stages from 1, empty ones
/// included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    stages: Vec<Stage>,
}

impl Schedule {
    /// Stages that follow each other in this order.
    pub fn new(stages: Vec<Stage>) -> Self {
        Self { stages }
    }

    /// All stages, empty ones included: the first is stage 1.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The stage of this number, from 1.
    pub fn stage(&self, number: u32) -> Option<&Stage> {
        self.stages.get((number as usize).checked_sub(1)?)
    }

    /// The steps of the stage of this number, and its global batch.
    fn steps_of(&self, number: u32) -> Option<(Range<u64>, u64)> {
        let stage = self.stage(number)?;
        let before: u64 = self.stages[..number as usize - 1].iter().map(|stage| stage.steps).sum();
        Some((before..before + stage.steps, u64::from(stage.batch)))
    }

    /// The step, through all stages, that uses a sample of a stage; `None` when no step does.
    pub fn step_of(&self, stage: u32, sample: u64) -> Option<u64> {
        let (steps, batch) = self.steps_of(stage)?;
        let step = steps.start.checked_add(sample.checked_div(batch)?)?;
        steps.contains(&step).then_some(step)
    }

    /// Steps of the run.
    pub fn total(&self) -> u64 {
        self.stages.iter().map(|stage| stage.steps).sum()
    }

    /// The number of a step's stage; that of the last step for what lies beyond, and 0 when there is no step.
    pub fn stage_of(&self, step: u64) -> u32 {
        let step = step.min(self.total().saturating_sub(1));
        let numbers = 1..=self.stages.len() as u32;
        numbers
            .filter_map(|number| Some((number, self.steps_of(number)?.0)))
            .find(|(_, steps)| steps.contains(&step))
            .map_or(0, |(number, _)| number)
    }

    /// Whether a stage, not empty, ends when `committed` steps are done.
    pub fn is_stage_end(&self, committed: u64) -> bool {
        let mut end = 0;
        self.stages.iter().any(|stage| {
            end += stage.steps;
            stage.steps > 0 && end == committed
        })
    }

    /// Samples of `stage` that `committed` steps of the run have used.
    pub fn samples_of(&self, stage: u32, committed: u64) -> u64 {
        let used = |(steps, batch): (Range<u64>, u64)| {
            (committed.clamp(steps.start, steps.end) - steps.start) * batch
        };
        self.steps_of(stage).map_or(0, used)
    }

    /// Samples that `committed` steps have used.
    pub fn samples(&self, committed: u64) -> u64 {
        (1..=self.stages.len() as u32).map(|stage| self.samples_of(stage, committed)).sum()
    }
}

impl FromIterator<Stage> for Schedule {
    fn from_iter<T: IntoIterator<Item = Stage>>(stages: T) -> Self {
        Self::new(stages.into_iter().collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Stages of these steps and global batches.
    pub(crate) fn schedule(stages: &[(u64, u32)]) -> Schedule {
        let stage = |(number, (steps, batch)): (usize, &(u64, u32))| Stage {
            name: format!("stage {}", number + 1),
            task: "contrast".into(),
            steps: *steps,
            batch: *batch,
        };
        stages.iter().enumerate().map(stage).collect()
    }

    #[test]
    fn stages_follow_each_other() {
        let schedule = schedule(&[(3, 4), (0, 9), (2, 10)]);
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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Walking through the steps one by one says the same as every formula.
        #[test]
        fn every_formula_agrees_with_a_walk(stages in prop::collection::vec((0u64..5, 1u32..4), 0..5)) {
            let schedule = schedule(&stages);
            let walk: Vec<u32> = (1u32..)
                .zip(&stages)
                .flat_map(|(number, (steps, _))| std::iter::repeat_n(number, *steps as usize))
                .collect();
            prop_assert_eq!(schedule.total(), walk.len() as u64);
            let mut used = vec![0u64; stages.len()];
            for (step, number) in (0u64..).zip(&walk) {
                prop_assert_eq!(schedule.stage_of(step), *number);
                let place = *number as usize - 1;
                for sample in used[place]..used[place] + u64::from(stages[place].1) {
                    prop_assert_eq!(schedule.step_of(*number, sample), Some(step));
                }
                used[place] += u64::from(stages[place].1);
                let committed = step + 1;
                for (number, used) in (1u32..).zip(&used) {
                    prop_assert_eq!(schedule.samples_of(number, committed), *used);
                }
                prop_assert_eq!(schedule.samples(committed), used.iter().sum::<u64>());
                let next = walk.get(committed as usize);
                prop_assert_eq!(schedule.is_stage_end(committed), next != Some(number));
            }
            for (number, used) in (1u32..).zip(&used) {
                prop_assert_eq!(schedule.step_of(number, *used), None);
            }
        }
    }
}
