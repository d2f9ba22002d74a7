//! A configuration as it is stored, with a run and on its way to a worker.

use serde::{Deserialize, Serialize};

use super::pretraining::{GenerateTable, RepresentTable, StoredStages};
use super::stage::StageSettings;
use super::{HeldOutSettings, LoaderSettings, WorkerConfig};
use crate::error::WorkerError;
use crate::settings::data::DataSettings;
use crate::settings::model::ModelSettings;
use crate::settings::train::StepSettings;

/// A configuration as it is stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StoredConfig {
    train: StepSettings,
    data: DataSettings,
    model: ModelSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage1: Option<RepresentTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage2: Option<GenerateTable>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<StageSettings>,
    loader: LoaderSettings,
    eval: HeldOutSettings,
}

impl From<WorkerConfig> for StoredConfig {
    fn from(config: WorkerConfig) -> Self {
        let StoredStages { stage1, stage2, stages } = StoredStages::of(&config.stages);
        let WorkerConfig { train, data, model, loader, eval, .. } = config;
        Self { train, data, model, stage1, stage2, stages, loader, eval }
    }
}

impl TryFrom<StoredConfig> for WorkerConfig {
    type Error = WorkerError;

    fn try_from(stored: StoredConfig) -> Result<Self, WorkerError> {
        let StoredConfig { train, data, model, stage1, stage2, stages, loader, eval } = stored;
        let stages = StoredStages { stage1, stage2, stages }.read()?;
        Ok(Self { train, data, model, stages, loader, eval })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskSettings;
    use crate::task::generate::GenerateSettings;

    #[test]
    fn the_stages_of_pre_training_are_stored_as_their_tables_and_read_back() {
        let mut config = WorkerConfig::default();
        (config.stages[0].steps, config.stages[1].batch) = (3, 32);
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("[stage1]\nsteps = 3\nbatch = 1680\ntext_length = 32\n"), "{text}");
        assert!(text.contains("[stage2]\nsteps = 0\nbatch = 32\n") && !text.contains("[[stages]]"), "{text}");
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
