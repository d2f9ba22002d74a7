//! Everything a run is told, section by section.

use blip2_coordinator::{CheckpointSettings, CoordinatorSettings};
use blip2_curation::config::CurationConfig;
use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::loader::LoaderSettings;
use blip2_evaluation::held_out::HeldOutSettings;
use blip2_proto::transport::TlsFiles;
use blip2_run::schedule::{Schedule, Stage};
use blip2_worker::WorkerConfig;
use blip2_worker::config::numbered;
use blip2_worker::config::pretraining::pretraining;
use blip2_worker::config::stage::{NumberedStage, StageSettings};
use blip2_worker::config::stored::StoredStages;
use blip2_worker::settings::data::DataSettings;
use blip2_worker::settings::model::ModelSettings;
use blip2_worker::settings::train::StepSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stages;

/// Everything a run is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunConfig {
    pub(crate) run: RunSection,
    pub(crate) train: StepSettings,
    pub(crate) data: DataSettings,
    pub(crate) model: ModelSettings,
    #[serde(flatten, with = "blip2_worker::config::stored")]
    #[schemars(with = "StoredStages")]
    pub(crate) stages: Vec<StageSettings>,
    pub(crate) loader: LoaderSettings,
    pub(crate) checkpoint: CheckpointSettings,
    pub(crate) coordinator: CoordinatorSettings,
    pub(crate) tls: TlsFiles,
    pub(crate) launch: LaunchSection,
    #[serde(skip_serializing_if = "MetricsSection::is_unset")]
    pub(crate) metrics: MetricsSection,
    pub(crate) eval: EvalSection,
    pub(crate) curation: CurationConfig,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            run: RunSection::default(),
            train: StepSettings::default(),
            data: DataSettings::default(),
            model: ModelSettings::default(),
            stages: pretraining(),
            loader: LoaderSettings::default(),
            checkpoint: CheckpointSettings::default(),
            coordinator: CoordinatorSettings::default(),
            tls: TlsFiles::default(),
            launch: LaunchSection::default(),
            metrics: MetricsSection::default(),
            eval: EvalSection::default(),
            curation: CurationConfig::default(),
        }
    }
}

/// Where a run lives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunSection {
    /// Folder or URL of the run (`s3://`, `gs://`, `az://`, a path).
    pub(crate) root: String,
    /// Name of the run; empty: made of the configuration's and the corpus's hashes.
    pub(crate) id: String,
    /// Folder or URL in which archives named in `data.train` are kept as Parquet; empty: `corpus` in
    /// `run.root`.
    pub(crate) converted: String,
}

/// What a process shows of itself while it works.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MetricsSection {
    /// Address of the plain HTTP port with `/metrics`, `/livez` and `/readyz` of the coordinator of a run, a
    /// curation or an evaluation, for example `[::]:7300`; port 0 takes a free one; empty: none.
    #[schemars(extend("x-stored-if-set" = true))]
    pub(crate) listen: String,
}

impl MetricsSection {
    /// Whether nothing is set: then nothing is stored, and a run has the text that it had before there were
    /// metrics.
    fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

/// How `train` starts worker processes on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LaunchSection {
    /// Threads of a worker process; 0: the machine's cores divided by the workers.
    #[schemars(range(min = 0, max = 4096))]
    pub(crate) threads_per_worker: usize,
    /// How often `train` starts each worker again that was killed; 0: never.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) restarts: u32,
    /// Let workers share a card, dealt round robin; else more workers than cards are refused.
    pub(crate) share_devices: bool,
    /// Keep each worker that has a card to its share of the cores, those near the card where that is known.
    pub(crate) pin_cores: bool,
}

impl Default for LaunchSection {
    fn default() -> Self {
        Self { threads_per_worker: 0, restarts: 3, share_devices: false, pin_cores: true }
    }
}

/// What is measured on held-out rows: while a run trains, and by `quickstart` after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EvalSection {
    #[serde(flatten)]
    pub(crate) while_training: HeldOutSettings,
    /// Parquet files of held-out images.
    pub(crate) test: Vec<String>,
    /// Folder of a frozen CLIP to compare retrieval with; empty: none.
    pub(crate) clip: String,
    /// Held-out images that get a caption in the report.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) captions: usize,
    /// Beams of the caption search; 1 is greedy.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) beams: usize,
    /// Longest caption in tokens.
    #[schemars(range(min = 1, max = 65_536))]
    pub(crate) max_new_tokens: usize,
}

impl Default for EvalSection {
    fn default() -> Self {
        Self {
            while_training: HeldOutSettings::default(),
            test: Vec::new(),
            clip: String::new(),
            captions: 40,
            beams: 5,
            max_new_tokens: 16,
        }
    }
}

impl RunConfig {
    /// The stages that have steps, with their numbers.
    pub(crate) fn trained_stages(&self) -> impl Iterator<Item = NumberedStage> {
        numbered(&self.stages).filter(|stage| stage.settings.steps > 0)
    }

    /// The columns of the corpus, as its trained stages read them.
    pub(crate) fn columns(&self) -> ColumnNames {
        match self.trained_stages().any(|stage| stage.settings.task.reads_captions_too()) {
            true => self.data.columns.with_captions_too(),
            false => self.data.columns.clone(),
        }
    }

    /// The key of a stage, before its own keys.
    pub(crate) fn key_of_stage(name: &str) -> String {
        stages::prefix(name)
    }

    /// The stages of the run.
    pub(crate) fn schedule(&self) -> Schedule {
        let stages = self.stages.iter().map(|stage| Stage {
            name: stage.name.clone(),
            task: stage.task.name().into(),
            steps: stage.steps,
            batch: stage.batch,
        });
        Schedule::new(stages.collect())
    }

    /// The part that workers get: all that a step depends on, and how data is loaded.
    pub(crate) fn worker(&self) -> WorkerConfig {
        WorkerConfig {
            train: self.train.clone(),
            data: self.data.clone(),
            model: self.model.clone(),
            stages: self.stages.clone(),
            loader: self.loader.clone(),
            eval: self.eval.while_training.clone(),
        }
    }
}
