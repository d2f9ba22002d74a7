//! `quickstart`: all stages on composed scenes or on the emoji corpus, then export, evaluation and the report.

mod emoji;
mod ends;
mod scenes;
mod survival;

use std::path::{Path, PathBuf};

use blip2_pages::chart::Series;
use blip2_run::exit::Exit;
use blip2_store::fetch::is_url;
use blip2_tensors::device::DeviceName;
use blip2_worker::config::stage::{NumberedStage, StageSettings};
use blip2_worker::settings::model::is_model_file;
use clap::{Args, ValueEnum};

use super::train::with_a_worker_a_card;
use crate::config::{Loaded, RunConfig};
use crate::error::CliError;
use crate::figures::duration;
use crate::metrics::{StepRecord, series};
use crate::session::Finished;

#[derive(Debug, Args)]
pub(crate) struct QuickstartArguments {
    /// What to train on.
    #[arg(long, value_enum, default_value_t = Corpus::Scenes)]
    pub(crate) corpus: Corpus,
    /// Fine-tune on questions about the scenes as well, and answer others.
    #[arg(long, value_enum)]
    pub(crate) with: Option<With>,
    /// Scenes to compose and train on.
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u64).range(256..=1_000_000))]
    pub(crate) scenes: u64,
    /// Folder that gets `report.html`, `run/` and `export/`.
    #[arg(long, default_value = "quickstart", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Set one value of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; same as
    /// `--set train.device=DEVICE`.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Continue the quick start in `--out`: what is trained is not trained again; starts it where there is
    /// none.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a quick start is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Corpus {
    /// Scenes of one to three things, composed first: captions are learnt and can be checked.
    Scenes,
    /// The emoji corpus of `assets/`, measured on concepts never shown: harder.
    Emoji,
}

/// What a quick start does besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum With {
    /// Answers to questions.
    Vqa,
}

/// Trains, exports, evaluates, reports.
pub(crate) async fn run(mut arguments: QuickstartArguments) -> Result<Exit, CliError> {
    arguments.set.extend(arguments.device.map(|device| format!("train.device={device}")));
    match arguments.corpus {
        Corpus::Scenes => scenes::run(arguments).await,
        Corpus::Emoji if arguments.with.is_some() => Err(CliError::usage(
            "--with vqa: the emoji corpus has no questions; leave --corpus emoji out".to_owned(),
        )),
        Corpus::Emoji => emoji::run(arguments).await,
    }
}

/// What a preset comes to with its run under `out`, checked before anything is written.
fn checked(loaded: Loaded, preset: &str, run_root: &Path) -> Result<RunConfig, CliError> {
    let config = with_a_worker_a_card(loaded, Some(preset))?;
    if Path::new(&config.run.root) != run_root {
        return Err(CliError::config("run.root: the quick start's run is in --out DIR; leave run.root out"));
    }
    let folders = [
        ("model.image_encoder", &config.model.image_encoder),
        ("model.language_model", &config.model.language_model),
        ("model.qformer_init", &config.model.qformer_init),
        ("model.qformer_tokenizer", &config.model.qformer_tokenizer),
        ("eval.clip", &config.eval.clip),
    ];
    for (key, folder) in folders {
        let path = Path::new(folder);
        if !folder.is_empty() && !is_url(folder) && !path.is_dir() && !is_model_file(key, path) {
            return Err(CliError::config(format!(
                "{key}: there is no folder {folder} here; start the quick start in the repository's folder, \
                 which has assets/"
            )));
        }
    }
    Ok(config)
}

/// Removes what an earlier quick start made beside its run: it is made again.
fn remove_earlier(folder: &Path) -> Result<(), CliError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::failed(format!("{}: it cannot be removed: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// The losses of a stage as its task names them.
fn loss_curves(records: &[StepRecord], stage: &NumberedStage) -> (String, Vec<Series>) {
    let task = &stage.settings.task;
    let names: Vec<(&str, &str)> = task.losses().iter().map(|loss| (loss.name, loss.title)).collect();
    (format!("Stage {}: {}", stage.number, task.title()), series(records, stage.number, &names))
}

/// A fact of every stage.
fn of_stages(config: &RunConfig, between: &str, of: impl Fn(&StageSettings) -> String) -> String {
    config.stages.iter().map(of).collect::<Vec<_>>().join(between)
}

/// What is said of a run's training: time, steps, samples, members.
fn training_facts(
    config: &RunConfig,
    finished: &Finished,
    records: &[StepRecord],
) -> Vec<(&'static str, String)> {
    let samples: u64 = records.iter().map(|record| record.samples).sum();
    let busy: f64 = records.iter().map(|record| record.seconds).sum();
    let waiting: f64 = records.iter().map(|record| record.data_wait_seconds).sum();
    let share = |part: f64| if busy > 0.0 { part / busy * 100.0 } else { 0.0 };
    vec![
        ("Time", duration(if finished.was_done { busy } else { finished.seconds })),
        ("Throughput", format!("{:.0} pictures/s", if busy > 0.0 { samples as f64 / busy } else { 0.0 })),
        ("Steps", of_stages(config, " + ", |stage| stage.steps.to_string())),
        ("Batch", of_stages(config, " and ", |stage| stage.batch.to_string())),
        ("Pictures seen", samples.to_string()),
        ("Worker processes", config.coordinator.workers.to_string()),
        ("Waiting for data", format!("{:.1} % of the time", share(waiting))),
        ("Rows quarantined", finished.status.quarantined.to_string()),
        ("Run", config.run.root.clone()),
        ("Checkpoint", finished.checkpoint.clone()),
    ]
}
