//! The stages of a configuration as they are stored, with a run and on its way to a worker: the form of a
//! field `#[serde(flatten, with = "…::stored")]`.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::pretraining::{GenerateTable, PRETRAINING, RepresentTable, Table};
use super::stage::StageSettings;
use crate::error::{Result, WorkerError};
use crate::task::TaskSettings;

/// The stages as they are stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StoredStages {
    /// The first of pre-training.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub stage1: Option<RepresentTable>,
    /// The second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub stage2: Option<GenerateTable>,
    /// Stages: those of pre-training, `represent` and `generate`, whose keys are `stage1` and `stage2` as
    /// well, and more behind them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
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

/// Writes a list in the form in which it is stored.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(stages: &[StageSettings], serializer: S) -> Result<S::Ok, S::Error> {
    StoredStages::of(stages).serialize(serializer)
}

/// Reads a list from the form in which it is stored.
///
/// # Errors
/// Those of the deserializer, and of [`StoredStages::read`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<StageSettings>, D::Error> {
    StoredStages::deserialize(deserializer)?.read().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::super::WorkerConfig;
    use super::*;
    use crate::task::generate::GenerateSettings;

    #[test]
    fn the_stages_of_pre_training_are_stored_as_their_tables_and_read_back() {
        let mut config = WorkerConfig::default();
        (config.stages[0].steps, config.stages[1].batch) = (3, 32);
        config.stages[1].image_size = 364;
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("[stage1]\nsteps = 3\nbatch = 1680\ntext_length = 32\n"), "{text}");
        assert!(
            text.contains("[stage2]\nsteps = 0\nbatch = 32\nimage_size = 364\n")
                && !text.contains("[[stages]]"),
            "{text}"
        );
        assert_eq!(toml::from_str::<WorkerConfig>(&text).unwrap(), config);
    }

    #[test]
    fn another_list_is_stored_as_it_is_and_reads_back() {
        for name in ["more", "generate2"] {
            let mut config = WorkerConfig::default();
            config.stages.push(StageSettings::of(name, TaskSettings::Generate(GenerateSettings::default())));
            let text = toml::to_string(&config).unwrap();
            assert!(text.matches("[[stages]]").count() == 3 && !text.contains("[stage1]"), "{text}");
            assert_eq!(toml::from_str::<WorkerConfig>(&text).unwrap(), config);
        }
    }

    #[test]
    fn stages_that_are_given_twice_are_refused() {
        let text = "[stage1]\nsteps = 1\n[[stages]]\nname = \"a\"\ntask = \"contrast\"\n";
        let error = toml::from_str::<WorkerConfig>(text).unwrap_err().to_string();
        assert!(error.contains("`stages`") && error.contains("`stage1`"), "{error}");
    }
}
