//! Everything a worker is told.

use blip2_dataset::loader::LoaderSettings;
use blip2_evaluation::held_out::HeldOutSettings;
use blip2_run::commit::CheckpointRecord;
use blip2_tensors::device::placement::Placement;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pretraining::pretraining;
use super::stage::{NumberedStage, StageSettings};
use super::stored::StoredStages;
use crate::error::{Result, WorkerError};
use crate::frozen_images::StageImages;
use crate::frozen_models::FrozenModels;
use crate::language::LanguageTexts;
use crate::open::{device, placement};
use crate::settings::data::DataSettings;
use crate::settings::model::ModelSettings;
use crate::settings::train::StepSettings;
use crate::task::Needs;

/// Everything a worker is told: the training configuration and how it loads data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Seed, slots and gradient mode.
    pub train: StepSettings,
    /// The corpus.
    pub data: DataSettings,
    /// The frozen parts and the Q-Former.
    pub model: ModelSettings,
    /// What is trained, in this order.
    #[serde(flatten, with = "super::stored")]
    #[schemars(with = "StoredStages")]
    pub stages: Vec<StageSettings>,
    /// Prefetch and threads: changes no bit of the result and is not hashed.
    #[schemars(extend("x-unhashed" = true))]
    pub loader: LoaderSettings,
    /// Evaluation during training: changes no bit of the result and is not hashed.
    #[schemars(extend("x-unhashed" = true))]
    pub eval: HeldOutSettings,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            train: StepSettings::default(),
            data: DataSettings::default(),
            model: ModelSettings::default(),
            stages: pretraining(),
            loader: LoaderSettings::default(),
            eval: HeldOutSettings::default(),
        }
    }
}

/// The stages of a list with their numbers.
pub fn numbered(stages: &[StageSettings]) -> impl Iterator<Item = NumberedStage> {
    (1..).zip(stages).map(|(number, settings)| NumberedStage { number, settings: settings.clone() })
}

impl WorkerConfig {
    /// The stages that have steps, in their order.
    pub fn trained_stages(&self) -> impl Iterator<Item = NumberedStage> {
        numbered(&self.stages).filter(|stage| stage.settings.steps > 0)
    }

    /// The stage that the run begins with.
    ///
    /// # Errors
    /// No stage has steps.
    pub fn first_stage(&self) -> Result<NumberedStage> {
        self.trained_stages().next().ok_or_else(|| {
            let keys = self.stages.iter().map(|stage| format!("stages.{}.steps", stage.name));
            let keys = keys.collect::<Vec<_>>().join(" or ");
            WorkerError::Configuration(format!("no stage has steps: there is nothing to train; set {keys}"))
        })
    }

    /// The stage of this name.
    pub fn stage(&self, name: &str) -> Option<NumberedStage> {
        numbered(&self.stages).find(|stage| stage.name() == name)
    }

    /// The stage of this number.
    pub fn stage_of_number(&self, number: u32) -> Option<NumberedStage> {
        numbered(&self.stages).find(|stage| stage.number == number)
    }

    /// The stage of a step of the run, and its index within the stage; the last stage beyond the end.
    ///
    /// # Errors
    /// No stage has steps.
    pub fn stage_of_step(&self, step: u64) -> Result<(NumberedStage, u64)> {
        let mut within = (self.first_stage()?, step);
        let mut begins = 0;
        for stage in self.trained_stages() {
            if step < begins {
                break;
            }
            let steps = stage.settings.steps;
            within = (stage, step - begins);
            begins += steps;
        }
        Ok(within)
    }

    /// The stage whose parameters a run has after so many committed steps: a stage's end is that stage's.
    ///
    /// # Errors
    /// No stage has steps.
    pub fn stage_after(&self, committed: u64) -> Result<NumberedStage> {
        Ok(self.stage_of_step(committed.saturating_sub(1))?.0)
    }

    /// The stage that a checkpoint is of, as its COMMIT says.
    ///
    /// # Errors
    /// [`WorkerError::Checkpoint`]: the configuration has no such stage, or one of another name or task.
    pub fn stage_of_checkpoint(&self, record: &CheckpointRecord) -> Result<NumberedStage> {
        let CheckpointRecord { stage: number, stage_name: name, task, .. } = record;
        let refuse = |reason: String| Err(WorkerError::checkpoint(&record.name, reason));
        let Some(stage) = self.stage_of_number(*number) else {
            let reason =
                format!("it is of stage {number}, the configuration has {} stages", self.stages.len());
            return refuse(reason);
        };
        let (own_name, own_task) = (stage.name(), stage.settings.task.name());
        // COMMITs from before stages had names say neither.
        let is_own = (name.is_empty() || name == own_name) && (task.is_empty() || task == own_task);
        if !is_own {
            return refuse(format!(
                "it is of stage `{name}` (task {task}), the configuration's stage {number} is `{own_name}` (task {own_task})"
            ));
        }
        Ok(stage)
    }

    /// Whether a stage ends when so many steps are committed.
    pub fn is_stage_end(&self, committed: u64) -> bool {
        let mut end = 0;
        self.trained_stages().any(|stage| {
            end += stage.settings.steps;
            end == committed
        })
    }

    /// Steps of all stages.
    pub fn total_steps(&self) -> u64 {
        self.stages.iter().map(|stage| stage.steps).sum()
    }

    /// What the trained stages need, taken together.
    pub fn needs(&self) -> Needs {
        let all = self.stages.iter().filter(|stage| stage.steps > 0).map(|stage| stage.task.needs());
        all.fold(Needs::default(), |all, needs| Needs {
            bert: all.bert || needs.bert,
            qformer_tokenizer: all.qformer_tokenizer || needs.qformer_tokenizer,
            language_model: all.language_model || needs.language_model,
        })
    }

    /// How the trained stages' captions become texts of the language model.
    pub(crate) fn language_texts(&self) -> Vec<LanguageTexts<'_>> {
        let trained = (1..).zip(&self.stages).filter(|(_, stage)| stage.steps > 0);
        trained
            .filter_map(|(number, stage)| stage.task.trained().language_texts(number, &stage.name))
            .collect()
    }

    /// The trained stages with images of their own size.
    fn stage_images(&self) -> Vec<StageImages<'_>> {
        let trained = (1..).zip(&self.stages).filter(|(_, stage)| stage.steps > 0 && stage.image_size > 0);
        trained
            .map(|(stage, StageSettings { name, image_size, .. })| StageImages {
                stage,
                name,
                size: *image_size,
            })
            .collect()
    }

    /// Loads the frozen models that the configuration names.
    ///
    /// # Errors
    /// A device that is not there, or a model that cannot be opened.
    pub fn frozen_models(&self) -> Result<FrozenModels> {
        let device = device(&self.train.device, self.train.tf32)?;
        self.frozen_models_at(&placement(&self.model, &device)?)
    }

    /// Loads them to a place.
    pub(crate) fn frozen_models_at(&self, place: &Placement) -> Result<FrozenModels> {
        let (texts, images) = (self.language_texts(), self.stage_images());
        FrozenModels::load_to(&self.train, &self.model, &texts, &images, place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_belong_to_the_stages_that_have_some() {
        let mut config = WorkerConfig::default();
        let more = StageSettings::of("more", config.stages[1].task.clone());
        config.stages.push(more);
        (config.stages[0].steps, config.stages[2].steps) = (3, 2);
        let stages: Vec<(u32, u64)> = (0..7)
            .map(|step| config.stage_of_step(step).unwrap())
            .map(|(stage, within)| (stage.number, within))
            .collect();
        assert_eq!(stages, [(1, 0), (1, 1), (1, 2), (3, 0), (3, 1), (3, 2), (3, 3)]);
        let after: Vec<u32> = (0..6).map(|step| config.stage_after(step).unwrap().number).collect();
        assert_eq!(after, [1, 1, 1, 1, 3, 3]);
        let ends: Vec<u64> = (0..7).filter(|step| config.is_stage_end(*step)).collect();
        assert_eq!((ends, config.total_steps()), (vec![3, 5], 5));
        assert_eq!(config.first_stage().unwrap().name(), "represent");
        config.stages[0].steps = 0;
        assert_eq!(config.first_stage().unwrap().name(), "more");
        assert!(WorkerConfig::default().first_stage().is_err());
    }

    #[test]
    fn a_checkpoint_of_another_stage_or_task_is_refused_by_name() {
        let config = WorkerConfig::default();
        let record = |stage: u32, name: &str, task: &str| CheckpointRecord {
            stage,
            stage_name: name.into(),
            task: task.into(),
            ..CheckpointRecord::new(&blip2_run::schedule::Schedule::new(Vec::new()), 0, 0)
        };
        for own in [record(2, "generate", "generate"), record(2, "", "")] {
            assert_eq!(config.stage_of_checkpoint(&own).unwrap().name(), "generate");
        }
        for (other, word) in [
            (record(2, "generate", "caption"), "task caption"),
            (record(1, "first", "contrast"), "`first`"),
            (record(3, "more", "generate"), "stage 3"),
        ] {
            let error = config.stage_of_checkpoint(&other).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
