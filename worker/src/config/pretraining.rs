//! The two stages of pre-training as configurations have always had them: the tables `stage1` and `stage2`.
//!
//! A list of exactly these two is stored and hashed in that form, so that a run from before there was a list
//! has the hash it had and goes on; any other list is stored as it is.

use serde::{Deserialize, Serialize};

use super::stage::StageSettings;
use crate::error::{Result, WorkerError};
use crate::settings::optimizer::OptimizerSettings;
use crate::task::TaskSettings;
use crate::task::contrast::ContrastSettings;
use crate::task::generate::GenerateSettings;

/// The stages of pre-training, which are the first of every configuration: their names, and the tables that
/// are the same.
pub const PRETRAINING: [(&str, &str); 2] = [("represent", "stage1"), ("generate", "stage2")];

/// The stages of pre-training without steps.
pub fn pretraining() -> Vec<StageSettings> {
    vec![Table::<ContrastSettings>::default().stage(), Table::<GenerateSettings>::default().stage()]
}

/// The keys of a stage of pre-training in their table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Table<T: Named> {
    steps: u64,
    batch: u32,
    #[serde(flatten)]
    task: T,
    optimizer: OptimizerSettings,
}

/// The task of a stage of pre-training.
pub trait Named: Clone + Default {
    /// The stage's name.
    const NAME: &'static str;

    /// As a configuration has it.
    fn task(self) -> TaskSettings;
}

impl Named for ContrastSettings {
    const NAME: &'static str = PRETRAINING[0].0;

    fn task(self) -> TaskSettings {
        TaskSettings::Contrast(self)
    }
}

impl Named for GenerateSettings {
    const NAME: &'static str = PRETRAINING[1].0;

    fn task(self) -> TaskSettings {
        TaskSettings::Generate(self)
    }
}

impl<T: Named> Default for Table<T> {
    fn default() -> Self {
        let stage = StageSettings::of(T::NAME, T::default().task());
        Self { steps: stage.steps, batch: stage.batch, task: T::default(), optimizer: stage.optimizer }
    }
}

impl<T: Named> Table<T> {
    fn of(stage: &StageSettings, task: &T) -> Self {
        let StageSettings { steps, batch, optimizer, .. } = stage;
        Self { steps: *steps, batch: *batch, task: task.clone(), optimizer: optimizer.clone() }
    }

    fn stage(self) -> StageSettings {
        let Self { steps, batch, task, optimizer } = self;
        StageSettings { name: T::NAME.into(), task: task.task(), steps, batch, optimizer }
    }
}

/// The table of the first stage of pre-training.
pub type RepresentTable = Table<ContrastSettings>;
/// The table of the second.
pub type GenerateTable = Table<GenerateSettings>;

/// The stages as they are stored.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StoredStages {
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The first.
    pub stage1: Option<RepresentTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The second.
    pub stage2: Option<GenerateTable>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    /// All of any other list.
    pub stages: Vec<StageSettings>,
}

impl StoredStages {
    /// The form in which a list is stored.
    pub fn of(stages: &[StageSettings]) -> Self {
        match stages {
            [
                first @ StageSettings { task: TaskSettings::Contrast(contrast), .. },
                second @ StageSettings { task: TaskSettings::Generate(generate), .. },
            ] if [first, second].map(|stage| stage.name.as_str()) == PRETRAINING.map(|(name, _)| name) => {
                let (stage1, stage2) = (Table::of(first, contrast), Table::of(second, generate));
                Self { stage1: Some(stage1), stage2: Some(stage2), stages: Vec::new() }
            }
            stages => Self { stages: stages.to_vec(), ..Self::default() },
        }
    }

    /// The list, which is that of pre-training where nothing is stored.
    ///
    /// # Errors
    /// Both the list and a table of a stage of pre-training.
    pub fn read(self) -> Result<Vec<StageSettings>> {
        let Self { stage1, stage2, stages } = self;
        match (stages.is_empty(), stage1.is_some() || stage2.is_some()) {
            (true, _) => Ok(vec![stage1.unwrap_or_default().stage(), stage2.unwrap_or_default().stage()]),
            (false, false) => Ok(stages),
            (false, true) => Err(WorkerError::Configuration(
                "the stages are given twice: as `stages` and as `stage1` or `stage2`; use one of them".into(),
            )),
        }
    }
}
