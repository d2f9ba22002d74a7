//! The configuration of a run: its sections, how its layers are read, and where every value came from.

mod layers;
mod model_folder;
mod ranges;
mod reference;
mod relations;
mod schema;
mod show;
mod sources;
mod stages;
mod stored;

use std::path::PathBuf;

use blip2_coordinator::{CheckpointSettings, CoordinatorSettings};
use blip2_curation::config::CurationConfig;
use blip2_dataset::loader::LoaderSettings;
use blip2_proto::transport::TlsFiles;
use blip2_run::schedule::{Schedule, Stage};
use blip2_store::secret_url::without_credentials;
use blip2_worker::WorkerConfig;
use blip2_worker::config::hash::NOT_HASHED;
use blip2_worker::config::pretraining::pretraining;
use blip2_worker::config::stage::{NumberedStage, StageSettings};
use blip2_worker::config::{HeldOutSettings, numbered};
use blip2_worker::settings::data::DataSettings;
use blip2_worker::settings::model::ModelSettings;
use blip2_worker::settings::train::StepSettings;
use serde::{Deserialize, Serialize};

use layers::Origin;
pub(crate) use layers::{Layers, Setting};
pub(crate) use schema::json_schema;
pub(crate) use show::{settings_as_json, settings_as_text};

use crate::error::CliError;

/// Everything a run is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "stored::StoredRun", try_from = "stored::StoredRun")]
pub(crate) struct RunConfig {
    pub(crate) run: RunSection,
    pub(crate) train: StepSettings,
    pub(crate) data: DataSettings,
    pub(crate) model: ModelSettings,
    pub(crate) stages: Vec<StageSettings>,
    pub(crate) loader: LoaderSettings,
    pub(crate) checkpoint: CheckpointSettings,
    pub(crate) coordinator: CoordinatorSettings,
    pub(crate) tls: TlsFiles,
    pub(crate) launch: LaunchSection,
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
            eval: EvalSection::default(),
            curation: CurationConfig::default(),
        }
    }
}

/// Where a run lives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunSection {
    /// Folder or URL of the run.
    pub(crate) root: String,
    /// Name of the run; empty: made of the configuration and the corpus.
    pub(crate) id: String,
    /// Folder or URL for the Parquet that archives are converted to; empty: `corpus` in the root.
    pub(crate) converted: String,
}

/// How `train` starts worker processes on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LaunchSection {
    /// Threads of a worker process; 0: the cores of the machine divided by the workers.
    pub(crate) threads_per_worker: usize,
    /// How often each worker that was killed is started again.
    pub(crate) restarts: u32,
    /// Whether workers may share a card, dealt round robin.
    pub(crate) share_devices: bool,
    /// Whether a worker with a card is kept to the cores near it.
    pub(crate) pin_cores: bool,
}

impl Default for LaunchSection {
    fn default() -> Self {
        Self { threads_per_worker: 0, restarts: 3, share_devices: false, pin_cores: true }
    }
}

/// What is measured on held-out rows: while a run trains, and by `quickstart` after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EvalSection {
    /// Steps between two evaluations while a run trains; 0: none.
    pub(crate) every_steps: u64,
    /// Parquet files of held-out rows for them.
    pub(crate) data: Vec<String>,
    /// Most rows of them, the first ones.
    pub(crate) rows: usize,
    /// Parquet files of held-out pictures.
    pub(crate) test: Vec<String>,
    /// Folder of the frozen CLIP to compare with; empty: no comparison.
    pub(crate) clip: String,
    /// Held-out pictures that get a caption in the report.
    pub(crate) captions: usize,
    /// Beams of the caption search; 1 is greedy.
    pub(crate) beams: usize,
    /// Longest caption in tokens.
    pub(crate) max_new_tokens: usize,
}

impl Default for EvalSection {
    fn default() -> Self {
        let HeldOutSettings { every_steps, data, rows } = HeldOutSettings::default();
        Self {
            every_steps,
            data,
            rows,
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
            eval: HeldOutSettings {
                every_steps: self.eval.every_steps,
                data: self.eval.data.clone(),
                rows: self.eval.rows,
            },
        }
    }
}

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ConfigArguments {
    /// TOML file with the values that differ from the defaults.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one value, for example `--set stage1.steps=1000`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// A configuration with the origin of each of its values.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) config: RunConfig,
    pub(crate) settings: Vec<Setting>,
}

impl Loaded {
    /// Whether somebody has set this key: in a file, unless `preset` is that of the program, in the
    /// environment or on the command line.
    pub(crate) fn is_asked_for(&self, key: &str, preset: Option<&str>) -> bool {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        setting.is_some_and(|setting| match &setting.origin {
            Origin::Default => false,
            Origin::File { path, .. } => preset.is_none_or(|preset| path.as_os_str() != preset),
            Origin::Environment { .. } | Origin::Argument => true,
        })
    }
}

/// Reads all layers: defaults, file (and its bases), environment, `--set`.
pub(crate) fn load(arguments: &ConfigArguments) -> Result<Loaded, CliError> {
    let mut layers = Layers::new()?;
    if let Some(path) = &arguments.config {
        layers.apply_file(path)?;
    }
    layers.apply_environment(std::env::vars())?;
    layers.apply_arguments(&arguments.set)?;
    let loaded = layers.finish()?;
    warn(&loaded.config);
    Ok(loaded)
}

/// Reads a preset that is part of the program, then environment and `--set`.
pub(crate) fn load_preset(name: &str, text: &str, set: &[String]) -> Result<Loaded, CliError> {
    let mut layers = Layers::new()?;
    layers.apply_text(name.as_ref(), text)?;
    layers.apply_environment(std::env::vars())?;
    layers.apply_arguments(set)?;
    let loaded = layers.finish()?;
    warn(&loaded.config);
    Ok(loaded)
}

fn warn(config: &RunConfig) {
    relations::warnings(config).iter().for_each(|warning| eprintln!("warning: {warning}"));
}

/// Dotted keys with values that are not the defaults, by key.
pub(crate) fn changed_values(config: &RunConfig) -> Result<Vec<(String, String)>, CliError> {
    let leaves = |config: &RunConfig| -> Result<_, CliError> {
        let table = toml::Table::try_from(config)
            .map_err(|error| CliError::failed(format!("the configuration does not serialise: {error}")))?;
        Ok(layers::leaves(&table))
    };
    let (own, defaults) = (leaves(config)?, leaves(&RunConfig::default())?);
    let changed = own.into_iter().filter(|(key, value)| defaults.get(key) != Some(value));
    Ok(changed.map(|(key, value)| (key, value.to_string())).collect())
}

/// Dotted keys whose values differ between two configurations, those aside that change no result.
pub(crate) fn differing_keys(a: &WorkerConfig, b: &WorkerConfig) -> Result<Vec<String>, CliError> {
    let leaves = |config: &WorkerConfig| -> Result<_, CliError> {
        let table = toml::Table::try_from(without_credentials(config))
            .map_err(|error| CliError::failed(format!("the configuration does not serialise: {error}")))?;
        Ok(layers::leaves(&table))
    };
    let (left, right) = (leaves(a)?, leaves(b)?);
    let differs = |key: &&String| left.get(*key) != right.get(*key);
    let is_free =
        |key: &str| key.starts_with("loader.") || key.starts_with("eval.") || NOT_HASHED.contains(&key);
    let counts = |key: &&String| !is_free(key);
    let all: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    Ok(all.into_iter().filter(counts).filter(differs).cloned().collect())
}
