//! A run's configuration as it is stored with the run.

use blip2_coordinator::{CheckpointSettings, CoordinatorSettings};
use blip2_curation::config::CurationConfig;
use blip2_dataset::loader::LoaderSettings;
use blip2_proto::transport::TlsFiles;
use blip2_worker::WorkerError;
use blip2_worker::config::pretraining::{GenerateTable, RepresentTable, StoredStages};
use blip2_worker::config::stage::StageSettings;
use blip2_worker::settings::data::DataSettings;
use blip2_worker::settings::model::ModelSettings;
use blip2_worker::settings::train::StepSettings;
use serde::{Deserialize, Serialize};

use super::{EvalSection, LaunchSection, RunConfig, RunSection};

/// The sections in their order; the stages of pre-training are tables, any other list is one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StoredRun {
    run: RunSection,
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
    checkpoint: CheckpointSettings,
    coordinator: CoordinatorSettings,
    tls: TlsFiles,
    launch: LaunchSection,
    eval: EvalSection,
    curation: CurationConfig,
}

impl From<RunConfig> for StoredRun {
    fn from(config: RunConfig) -> Self {
        let StoredStages { stage1, stage2, stages } = StoredStages::of(&config.stages);
        let RunConfig {
            run,
            train,
            data,
            model,
            loader,
            checkpoint,
            coordinator,
            tls,
            launch,
            eval,
            curation,
            ..
        } = config;
        Self {
            run,
            train,
            data,
            model,
            stage1,
            stage2,
            stages,
            loader,
            checkpoint,
            coordinator,
            tls,
            launch,
            eval,
            curation,
        }
    }
}

impl TryFrom<StoredRun> for RunConfig {
    type Error = WorkerError;

    fn try_from(stored: StoredRun) -> Result<Self, WorkerError> {
        let StoredRun { stage1, stage2, stages, .. } = stored;
        let stages = StoredStages { stage1, stage2, stages }.read()?;
        let StoredRun {
            run,
            train,
            data,
            model,
            loader,
            checkpoint,
            coordinator,
            tls,
            launch,
            eval,
            curation,
            ..
        } = stored;
        Ok(Self {
            run,
            train,
            data,
            model,
            stages,
            loader,
            checkpoint,
            coordinator,
            tls,
            launch,
            eval,
            curation,
        })
    }
}
