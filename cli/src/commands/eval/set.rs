//! What all evaluations over a set have in common: the set, units and shares, and how scores are shown.

use std::collections::BTreeSet;
use std::path::PathBuf;

use blip2_dataset::corpus::survey::thumbnail;
use blip2_dataset::error::DatasetError;
use blip2_evaluation::job::{EvaluationJob, EvaluationRecord, Phase};
use blip2_evaluation::job_error::{JobError, Result as JobResult};
use blip2_evaluation::metrics::bootstrap::Draws;
use blip2_evaluation::sets::item::ItemSet;
use blip2_run::exit::Exit;
use blip2_store::StorePool;
use blip2_tensors::device::DeviceName;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;

use super::columns::SetColumns;
use super::leased::{EvaluationWork, UnitTasks};
use super::model::is_export;
use super::score::page;
use super::score::references::Judged;
use super::score::summary::{Files, Summary};
use super::units::{Begun, Session, UnitArguments};
use crate::commands::checkpoint::Target;
use crate::commands::{print_json, print_text};
use crate::error::CliError;
use crate::places::typed_location;
use crate::report::write_page;
use crate::run_folder::stored_manifest;
use crate::typed_numbers;

/// An evaluation that is begun.
pub(super) struct Evaluation<'a> {
    /// `caption`, `vqa`, `retrieval` or `itm`.
    pub(super) task: &'static str,
    /// What was typed, for workers.
    pub(super) arguments: Result<Value, CliError>,
    /// BLAKE3 of the model.
    pub(super) model: &'a str,
    /// BLAKE3 of the set, and its items.
    pub(super) set: (String, usize),
    /// What else decides the results.
    pub(super) settings: Value,
    /// What units are computed for, each phase from all results of those before.
    pub(super) phases: &'static [Phase],
}

/// Arguments as workers are told them.
pub(super) fn for_workers(arguments: &impl Serialize) -> Result<Value, CliError> {
    let failed = |error| CliError::failed(format!("the arguments do not serialise: {error}"));
    serde_json::to_value(arguments).map_err(failed)
}

/// An image of a set may be as large as a file of the training corpus by default.
pub(super) const MAX_PIXELS: u64 = 200_000_000;

/// A model and a set.
#[derive(Debug, Args, Serialize, Deserialize)]
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
    #[command(flatten)]
    pub(super) columns: SetColumns,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N` [default: cpu; of a run
    /// without --out, the one it was trained on].
    #[arg(long, value_name = "DEVICE")]
    #[serde(skip)]
    pub(super) device: Option<DeviceName>,
    /// Read images of this many pixels a side; the model's position table is resized [default: the model's].
    #[arg(long, value_name = "N", value_parser = typed_numbers::some)]
    pub(super) image_size: Option<usize>,
    #[command(flatten)]
    pub(super) units: UnitArguments,
    #[command(flatten)]
    #[serde(skip)]
    pub(super) shown: ShownArguments,
}

/// How scores are shown.
#[derive(Debug, Default, Args)]
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
            ("--workers", self.units.are_handed_out()),
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
        session: Session,
        evaluation: Evaluation<'_>,
    ) -> Result<Begun, CliError> {
        let Evaluation { task, arguments, model, set, mut settings, phases } = evaluation;
        settings["image_size"] = self.image_size.into();
        let (out, scratch) = match &self.units.out {
            Some(out) => (out.clone(), None),
            None => {
                let unmade = |error| CliError::failed(format!("a folder for results: {error}"));
                let scratch = TempDir::new().map_err(unmade)?;
                (scratch.path().to_string_lossy().into_owned(), Some(scratch))
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
        let job = EvaluationJob::begin(&typed_location(&out)?, record).await?;
        let device = self.device.unwrap_or(DeviceName::Cpu);
        let mut evaluation = arguments?;
        // Workers write where this process does.
        evaluation["set"]["units"]["out"] = out.into();
        let work = EvaluationWork { task: task.to_owned(), device: device.to_string(), evaluation };
        self.units.begun(session, UnitTasks { job, phases }, &work, device, scratch)
    }

    /// What the reader of the scores must know where files of the set are among those that the model's run
    /// was trained on.
    async fn seen_in_training(&self) -> Result<Option<String>, CliError> {
        let is_parquet = self.data.iter().all(|data| data.ends_with(".parquet"));
        if !is_parquet || is_export(&self.model).await? {
            return Ok(None);
        }
        let root = Target::resolve(&self.model).await?.root;
        // A run of imported weights has read nothing.
        let Ok(trained) = stored_manifest(&root).await else { return Ok(None) };
        let trained: BTreeSet<&str> = trained.files.iter().map(|file| file.location.as_str()).collect();
        // By name alone: what columns they have is the set's business.
        let (mut pool, mut both) = (StorePool::default(), 0);
        for data in &self.data {
            let files = pool.expand(data, &["parquet"]).await?;
            both += files.iter().filter(|file| trained.contains(file.location.to_string().as_str())).count();
        }
        Ok((both > 0).then(|| format!("{both} of these files are among those that the run was trained on")))
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
        mut notes: Vec<String>,
        mut judged: Judged,
        pictured: Pictured<'_, T>,
    ) -> Result<Exit, CliError> {
        let draws = Draws { count: self.shown.bootstrap, seed: self.shown.bootstrap_seed };
        notes.extend(self.seen_in_training().await?);
        let results = match &self.units.out {
            Some(_) => begun.job().out().join(pictured.results).to_string(),
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
pub(super) async fn opened<M, E>(open: impl FnOnce() -> Result<M, E> + Send + 'static) -> Result<M, CliError>
where
    M: Send + 'static,
    E: Into<CliError> + Send + 'static,
{
    let opened = tokio::task::spawn_blocking(open).await;
    opened.map_err(|error| CliError::failed(format!("opening the model: {error}")))?.map_err(E::into)
}
