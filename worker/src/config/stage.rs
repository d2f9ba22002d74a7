//! A stage of a run: its task with its steps, its batch and its optimizer.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::model::ModelSettings;
use crate::settings::optimizer::OptimizerSettings;
use crate::task::TaskSettings;

/// A stage as a configuration has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written")]
#[schemars(!from)]
pub struct StageSettings {
    /// Names the stage in metrics, checkpoints, status and reports.
    pub name: String,
    /// What it does; the task's own keys are beside the others.
    #[serde(flatten)]
    pub task: TaskSettings,
    /// Steps of the stage; 0 skips it.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub steps: u64,
    /// Global batch; a multiple of `train.slots`.
    #[schemars(range(min = 1, max = 1 << 20))]
    pub batch: u32,
    /// Side of the stage's images in pixels, a multiple of the image encoder's patch; 0: `model.image_size`.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 16_384), extend("x-stored-if-set" = true))]
    pub image_size: usize,
    /// AdamW and its schedule.
    pub optimizer: OptimizerSettings,
}

/// Whether a size is that of the run: then it is not stored, and a run has the hash that it had before stages
/// had one.
pub(super) fn is_zero(size: &usize) -> bool {
    *size == 0
}

/// The same where keys may be left out: what then holds is the task's to say.
#[derive(Deserialize)]
struct Written {
    name: String,
    #[serde(flatten)]
    task: TaskSettings,
    #[serde(default)]
    steps: u64,
    batch: Option<u32>,
    #[serde(default)]
    image_size: usize,
    optimizer: Option<OptimizerSettings>,
}

impl From<Written> for StageSettings {
    fn from(written: Written) -> Self {
        let Written { name, task, steps, batch, image_size, optimizer } = written;
        let default = Self::of(name, task);
        Self {
            steps,
            batch: batch.unwrap_or(default.batch),
            image_size,
            optimizer: optimizer.unwrap_or(default.optimizer),
            ..default
        }
    }
}

impl StageSettings {
    /// A stage of no steps, with what its task has where nothing is given.
    pub fn of(name: impl Into<String>, task: TaskSettings) -> Self {
        let (batch, optimizer) = (task.default_batch(), task.default_optimizer());
        Self { name: name.into(), task, steps: 0, batch, image_size: 0, optimizer }
    }

    /// The run's models as the stage has them: for images of its own size, where it names one.
    pub(crate) fn model<'a>(&self, run: &'a ModelSettings) -> Cow<'a, ModelSettings> {
        match self.image_size {
            0 => Cow::Borrowed(run),
            image_size => Cow::Owned(ModelSettings { image_size, ..run.clone() }),
        }
    }
}

/// A stage with its place in the list.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberedStage {
    /// From 1, stages without steps counted: it is part of the keys of random draws and of the plan.
    pub number: u32,
    /// Its settings.
    pub settings: StageSettings,
}

impl NumberedStage {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::lora::LoraSettings;
    use crate::task::caption::CaptionSettings;

    fn read(text: &str) -> Result<StageSettings, toml::de::Error> {
        toml::from_str(text)
    }

    fn toml_of_unset() -> String {
        toml::to_string(&StageSettings::of("own", TaskSettings::Caption(CaptionSettings::default()))).unwrap()
    }

    #[test]
    fn what_is_left_out_is_as_the_task_has_it() {
        for task in TaskSettings::known() {
            let read = read(&format!("name = \"a\"\ntask = \"{}\"\nsteps = 3\n", task.name())).unwrap();
            assert_eq!(read, StageSettings { steps: 3, ..StageSettings::of("a", task) });
        }
        let [contrast, generate] = [0, 1].map(|at| StageSettings::of("a", TaskSettings::known()[at].clone()));
        assert_eq!((contrast.batch, generate.batch), (1680, 1920));
        assert_eq!([contrast, generate].map(|stage| stage.optimizer.min_learning_rate), [1e-5, 5e-5]);
    }

    #[test]
    fn a_stage_reads_back_as_it_is_written() {
        for task in TaskSettings::known() {
            let stage = StageSettings { steps: 7, batch: 8, ..StageSettings::of("own", task) };
            let written = toml::to_string(&stage).unwrap();
            assert!(!written.contains("image_size"), "{written}");
            assert_eq!(read(&written).unwrap(), stage);
            let stage = StageSettings { image_size: 364, ..stage };
            assert_eq!(read(&toml::to_string(&stage).unwrap()).unwrap(), stage);
        }
        let lora = LoraSettings { rank: 3, ..LoraSettings::default() };
        let task = TaskSettings::Caption(CaptionSettings { lora, ..CaptionSettings::default() });
        let stage = StageSettings { steps: 7, ..StageSettings::of("own", task) };
        let written = toml::to_string(&stage).unwrap();
        assert_eq!(read(&written).unwrap(), stage);
        assert!(written.contains("alpha = 32.0") && !toml_of_unset().contains("lora"), "{written}");
    }

    #[test]
    fn unknown_tasks_and_keys_are_refused() {
        let error = read("name = \"a\"\ntask = \"segment\"").unwrap_err().to_string();
        assert!(error.contains("segment") && error.contains("contrast"), "{error}");
        let error = read("name = \"a\"\ntask = \"generate\"\ntemperature = 1.0").unwrap_err().to_string();
        assert!(error.contains("temperature"), "{error}");
    }
}
