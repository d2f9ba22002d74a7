//! What all evaluations over a set have in common: the set, units and shares, and how scores are shown.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use blip2_dataset::corpus::ingest::Share;
use blip2_dataset::corpus::survey::thumbnail;
use blip2_dataset::error::DatasetError;
use blip2_evaluation::job::{EvaluationJob, EvaluationRecord, Phase, Progress};
use blip2_evaluation::job_error::{JobError, Result as JobResult};
use blip2_evaluation::metrics::bootstrap::Draws;
use blip2_evaluation::sets::item::ItemSet;
use blip2_run::exit::Exit;
use blip2_store::Location;
use blip2_tensors::device::DeviceName;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::model::is_export;
use super::score::page;
use super::score::references::Judged;
use super::score::summary::{Files, Summary};
use crate::again::same_command;
use crate::commands::share::share;
use crate::commands::{print_json, print_text};
use crate::error::CliError;
use crate::places::typed_location;
use crate::report::write_page;
use crate::signals::Signals;
use crate::typed_numbers;

/// An image of a set may be as large as a file of the training corpus by default.
pub(super) const MAX_PIXELS: u64 = 200_000_000;
/// Between two lines of progress, at least.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A model and a set.
#[derive(Debug, Args)]
pub(super) struct SetArguments {
    /// An exported model (folder or URL), a run, or one of its checkpoints.
    #[arg(long, value_name = "RUN_OR_FOLDER")]
    pub(super) model: String,
    /// The set: Parquet with images (files, URLs, patterns), a data set's own `.json`, a table (`.csv`,
    /// `.tsv`, `.jsonl`) or a folder of images; may be repeated for Parquet.
    #[arg(long, value_name = "F", required = true)]
    pub(super) data: Vec<String>,
    /// Folder or URL of the images that the set's file names [default: the file's own folder].
    #[arg(long, value_name = "FOLDER")]
    pub(super) images: Option<String>,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N` [default: cpu; of a run
    /// without --out, the one it was trained on].
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<DeviceName>,
    /// Read images of this many pixels a side; the model's position table is resized [default: the model's].
    #[arg(long, value_name = "N", value_parser = typed_numbers::some)]
    pub(super) image_size: Option<usize>,
    #[command(flatten)]
    pub(super) units: UnitArguments,
    #[command(flatten)]
    pub(super) shown: ShownArguments,
}

/// How the work is cut, and where its results are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Units")]
pub(super) struct UnitArguments {
    /// Folder or URL for results; the same command goes on where it was stopped. Without it, nothing is kept.
    #[arg(long, value_name = "FOLDER_OR_URL")]
    pub(super) out: Option<String>,
    /// Do the I-th of N shares of the units, from 0; whoever finishes last puts the results together.
    #[arg(long, value_name = "I/N", value_parser = share, requires = "out")]
    pub(super) shard: Option<Share>,
    /// Items of a unit, which are computed and stored together.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = typed_numbers::some)]
    pub(super) unit_items: usize,
}

/// How scores are shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scores")]
pub(super) struct ShownArguments {
    /// Draws of images for intervals; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = typed_numbers::draws)]
    pub(super) bootstrap: usize,
    /// Seed of the draws.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) bootstrap_seed: u64,
    /// Print the scores as a JSON line.
    #[arg(long)]
    pub(super) json: bool,
    /// Write a page with images and the worst cases first (HTML).
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}

/// An evaluation that was begun.
pub(super) struct Begun {
    pub(super) job: EvaluationJob,
    share: Share,
    stop: CancellationToken,
    // Goes away with the evaluation, where nothing is kept.
    _scratch: Option<TempDir>,
}

impl SetArguments {
    /// Whether what is asked for is what a run's own task measures of its checkpoint: a run, and nothing that
    /// belongs to evaluations in units.
    pub(super) async fn is_of_checkpoint(&self) -> Result<bool, CliError> {
        if self.units.out.is_some() || is_export(&self.model).await? {
            return Ok(false);
        }
        let typed = [
            ("--images", self.images.is_some()),
            ("--image-size", self.image_size.is_some()),
            ("--report", self.shown.report.is_some()),
        ];
        match typed.into_iter().find(|(_, is_typed)| *is_typed) {
            None => Ok(true),
            Some((flag, _)) => Err(CliError::usage(format!(
                "{flag}: of a run, its own measure is taken; name --out to write and score results"
            ))),
        }
    }

    /// Begins the evaluation of a set, or goes on with it.
    pub(super) async fn begin(
        &self,
        signals: &Signals,
        task: &str,
        model: &str,
        set: (String, usize),
        mut settings: serde_json::Value,
    ) -> Result<Begun, CliError> {
        settings["image_size"] = self.image_size.into();
        let (out, scratch) = match &self.units.out {
            Some(out) => (typed_location(out)?, None),
            None => {
                let unmade = |error| CliError::failed(format!("a folder for results: {error}"));
                let scratch = TempDir::new().map_err(unmade)?;
                (Location::parse(&scratch.path().to_string_lossy())?, Some(scratch))
            }
        };
        let record = EvaluationRecord {
            task: task.to_owned(),
            model: model.to_owned(),
            set: set.0,
            items: set.1 as u64,
            unit_items: self.units.unit_items as u64,
            settings,
        };
        let job = EvaluationJob::begin(&out, record).await?;
        let share = self.units.shard.unwrap_or(Share::WHOLE);
        Ok(Begun { job, share, stop: signals.graceful(), _scratch: scratch })
    }

    /// The files of a summary.
    fn files(&self, task: &str, mode: Option<String>, results: String) -> Files {
        Files { task: task.to_owned(), mode, results, references: self.data.join(", "), against: None }
    }

    /// Prints the scores, keeps them beside the results, and writes the page.
    pub(super) async fn show<T>(
        &self,
        begun: &Begun,
        (task, mode): (&str, Option<String>),
        notes: Vec<String>,
        mut judged: Judged,
        pictured: Pictured<'_, T>,
    ) -> Result<Exit, CliError> {
        let draws = Draws { count: self.shown.bootstrap, seed: self.shown.bootstrap_seed };
        let results = match &self.units.out {
            Some(_) => begun.job.out().join(pictured.results).to_string(),
            None => self.model.clone(),
        };
        let summary = Summary::new(self.files(task, mode, results), notes, draws, &judged, None)?;
        begun.keep("scores.json", &summary).await?;
        if let Some(path) = &self.shown.report {
            pictured.illustrate(&mut judged).await?;
            write_page(&page::render(&summary, &judged, None), path)?;
        }
        match self.shown.json {
            true => print_json(&summary)?,
            false => print_text(&summary.table())?,
        }
        Ok(Exit::Done)
    }
}

/// The images of cases.
pub(super) struct Pictured<'a, T> {
    pub(super) set: &'a mut ItemSet<T>,
    /// The item of each case.
    pub(super) items: Vec<usize>,
    /// Name of the object with the results.
    pub(super) results: &'static str,
}

impl<T> Pictured<'_, T> {
    /// Adds small images to the cases that a page shows.
    async fn illustrate(self, judged: &mut Judged) -> Result<(), CliError> {
        for case in page::worst_first(&judged.cases) {
            let Some(item) = self.items.get(case) else { continue };
            let (images, _) = self.set.images(*item..*item + 1).await?;
            // What is too long to be shown stays away from the page, not from the scores.
            judged.cases[case].thumbnail = images.into_iter().next().and_then(|image| thumbnail(image).ok());
        }
        Ok(())
    }
}

impl Begun {
    /// Does the own units of a phase. `None` if all units are done, else how the command ends.
    pub(super) async fn work(
        &self,
        phase: Phase,
        compute: impl AsyncFnMut(std::ops::Range<usize>) -> JobResult<Vec<u8>>,
    ) -> Result<Option<Exit>, CliError> {
        let told = Cell::new(Instant::now());
        let progress = |Progress { done, units }: Progress| {
            if told.get().elapsed() >= PROGRESS_EVERY || done == units {
                eprintln!("{}: {done} of {units} units", phase.folder);
                told.set(Instant::now());
            }
        };
        let is_stopped = || self.stop.is_cancelled();
        let reached = self.job.work(phase, self.share, is_stopped, compute, progress).await?;
        if reached.is_finished() {
            return Ok(None);
        }
        let Progress { done, units } = reached;
        let again = same_command(None);
        if is_stopped() {
            eprintln!("stopped after {done} of {units} units of {}; continue with {again}", phase.folder);
            return Ok(Some(Exit::Interrupted));
        }
        eprintln!(
            "{done} of {units} units of {} are done; when the other shares are, finish with {again}",
            phase.folder
        );
        Ok(Some(Exit::Done))
    }

    /// Writes an object beside the units' results.
    pub(super) async fn keep(&self, name: &str, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value)
            .map_err(|error| CliError::failed(format!("{name} does not serialise: {error}")))?;
        self.keep_bytes(name, (text + "\n").into()).await
    }

    /// The same, of bytes.
    pub(super) async fn keep_bytes(&self, name: &str, content: Bytes) -> Result<(), CliError> {
        Ok(self.job.out().join(name).put(content).await?)
    }
}

/// Computes away from input and output; the model comes back for the next unit.
pub(super) async fn aside<M: Send + 'static, T: Send + 'static>(
    model: &mut Option<M>,
    compute: impl FnOnce(&mut M) -> T + Send + 'static,
) -> JobResult<T> {
    let failed = |reason: String| JobError::Data(DatasetError::Thread { reason });
    let mut taken = model.take().ok_or_else(|| failed("it failed in a unit before".to_owned()))?;
    let computed = tokio::task::spawn_blocking(move || {
        let value = compute(&mut taken);
        (taken, value)
    });
    let (back, value) = computed.await.map_err(|error| failed(error.to_string()))?;
    *model = Some(back);
    Ok(value)
}

/// Opens a model on a thread of its own.
pub(super) async fn opened<M: Send + 'static>(
    open: impl FnOnce() -> blip2_evaluation::Result<M> + Send + 'static,
) -> Result<M, CliError> {
    let opened = tokio::task::spawn_blocking(open).await;
    Ok(opened.map_err(|error| CliError::failed(format!("opening the model: {error}")))??)
}
