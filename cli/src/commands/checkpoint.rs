//! `checkpoint`: what a run has saved.

use std::path::PathBuf;

use blip2_run::RunError;
use blip2_run::catalogue::{Catalogue, Damaged};
use blip2_run::commit::CheckpointRecord;
use blip2_run::exit::Exit;
use blip2_run::layout::{CHECKPOINTS, COMMIT};
use blip2_store::Location;
use blip2_store::fetch::is_url;
use blip2_worker::config::numbered;
use blip2_worker::config::stage::NumberedStage;
use blip2_worker::export::{ExportOptions, Layout, Precision, export as write_layout};
use blip2_worker::{NamedState, WorkerConfig, WorkerError, read_checkpoint};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::import::{self, ImportArguments};
use super::{print_json, print_text};
use crate::error::CliError;
use crate::places::typed_location;
use crate::run_folder::{must_be_run, stored_configuration};

#[derive(Debug, Args)]
pub(crate) struct CheckpointArguments {
    #[command(subcommand)]
    pub(crate) command: CheckpointCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointCommand {
    /// List the checkpoints of a run.
    Ls(CheckpointTarget),
    /// Read everything back, the list of quarantined rows included; compare length and BLAKE3, and look for
    /// NaN.
    Verify(CheckpointTarget),
    /// Print one BLAKE3 over all trainable parameters, in path order, and the step.
    Digest(CheckpointTarget),
    /// Write a folder that Hugging Face `transformers` loads, or a file that LAVIS loads.
    Export(ExportArguments),
    /// Make a run whose first checkpoint is published weights; `train --resume` starts from them.
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointTarget {
    /// A run (folder or URL; its newest checkpoint is meant) or one of its checkpoints.
    #[arg(value_name = "RUN_OR_FOLDER")]
    pub(crate) target: String,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(crate) checkpoint: CheckpointTarget,
    /// Folder to write, or with `--layout lavis` a file that ends in .pth or .safetensors; it must not exist
    /// yet.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// What to write.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) layout: LayoutArgument,
    /// Numbers of the weights.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: PrecisionArgument,
    /// Largest weight file of a folder, e.g. 500MB; larger models are written in shards.
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = parse_size)]
    pub(crate) shard_size: u64,
}

/// A published layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutArgument {
    /// `Blip2ForConditionalGeneration` with its processor, from a stage-2 checkpoint, or
    /// `InstructBlipForConditionalGeneration`, from one whose Q-Former reads questions.
    #[default]
    Huggingface,
    /// `Blip2ForImageTextRetrieval` with its processor, from a stage-1 checkpoint.
    Retrieval,
    /// LAVIS's names: what the checkpoint's stage trains.
    Lavis,
    /// The adapters of the language model (LoRA) as `peft` loads them, from a stage that trains some; the
    /// other layouts of a folder have them added to its weights.
    Peft,
}

/// Numbers of written weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArgument {
    /// Float32, as trained.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// The upper half of float32.
    Bf16,
}

/// A number of bytes with a decimal unit.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        unit => return Err(format!("unit `{unit}` is unknown; use B, KB, MB or GB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{text}` is not a size like 5GB"))?;
    number
        .checked_mul(factor)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("`{text}` is not a usable size"))
}

/// A run, and the checkpoint of it that was named.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) root: Location,
    name: Option<String>,
}

/// Lists, checks, hashes, exports or imports.
pub(crate) async fn run(arguments: CheckpointArguments) -> Result<Exit, CliError> {
    match arguments.command {
        CheckpointCommand::Ls(target) => list(&target).await,
        CheckpointCommand::Verify(target) => verify(&target).await,
        CheckpointCommand::Digest(target) => digest(&target).await,
        CheckpointCommand::Export(arguments) => export(&arguments).await,
        CheckpointCommand::Import(arguments) => import::run(&arguments).await,
    }
}

impl Target {
    /// A checkpoint if the folder has a COMMIT, else a run.
    pub(crate) async fn resolve(named: &str) -> Result<Self, CliError> {
        let place = typed_location(named)?;
        if place.join(COMMIT).head().await?.is_none() {
            return Ok(Self { root: place, name: None });
        }
        // What a signed URL ends in belongs to the run as well.
        let (path, query) = named.split_at(named.find('?').filter(|_| is_url(named)).unwrap_or(named.len()));
        let trimmed = path.trim_end_matches('/');
        let (folder, name) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
        let root = match folder.strip_suffix(CHECKPOINTS) {
            Some("") => ".",
            Some(run) => run.trim_end_matches('/'),
            None => {
                return Err(CliError::failed(format!(
                    "{place}: a checkpoint lies in RUN/{CHECKPOINTS}/; name it there, or name the run"
                )));
            }
        };
        Ok(Self { root: typed_location(&format!("{root}{query}"))?, name: Some(name.to_owned()) })
    }

    /// The named checkpoint, or the newest valid one; newer ones that are damaged are named on standard
    /// error.
    pub(crate) async fn record(&self) -> Result<CheckpointRecord, CliError> {
        let Choice { record, passed_over } = self.choose().await?;
        warn_of(&passed_over, &record);
        Ok(record)
    }

    /// The named checkpoint, or the newest, which must not be a damaged one.
    async fn newest(&self) -> Result<CheckpointRecord, CliError> {
        let Choice { record, mut passed_over } = self.choose().await?;
        match passed_over.pop() {
            None => Ok(record),
            Some(Damaged { name, reason }) => Err(CliError::BadInput(format!(
                "checkpoint {name}, the newest, is damaged: {reason}; the newest that is not is {root}/{CHECKPOINTS}/{whole}, \
                 with which `--resume` goes on",
                root = self.root,
                whole = record.name
            ))),
        }
    }

    async fn choose(&self) -> Result<Choice, CliError> {
        let catalogue = Catalogue::new(&self.root);
        if let Some(name) = &self.name {
            let record = catalogue.read_commit(name).await.map_err(damaged)?;
            return Ok(Choice { record, passed_over: Vec::new() });
        }
        let (newest, passed_over) = catalogue.latest_valid().await.map_err(damaged)?;
        match newest {
            Some(record) => Ok(Choice { record, passed_over }),
            None => Err(self.has_none().await?),
        }
    }

    /// Why there is no checkpoint.
    async fn has_none(&self) -> Result<CliError, CliError> {
        must_be_run(&self.root).await?;
        Ok(CliError::failed(format!("{} has no checkpoint yet", self.root)))
    }

    /// The named checkpoint, or the newest valid one of a stage that is `wanted`, with its stage; newer ones
    /// that are damaged are named on standard error. `what` calls the stage in an error.
    pub(crate) async fn record_of_stage(
        &self,
        config: &WorkerConfig,
        what: &str,
        wanted: impl Fn(&NumberedStage) -> bool,
    ) -> Result<(CheckpointRecord, NumberedStage), CliError> {
        if self.name.is_some() {
            let record = self.record().await?;
            let stage = config.stage_of_checkpoint(&record)?;
            return Ok((record, stage));
        }
        let listing = Catalogue::new(&self.root).list().await?;
        let stages: Vec<u32> = numbered(&config.stages).filter(wanted).map(|stage| stage.number).collect();
        let newest = listing.valid.into_iter().rev().find(|record| stages.contains(&record.stage));
        let Some(record) = newest else {
            must_be_run(&self.root).await?;
            return Err(CliError::failed(format!("{} has no checkpoint of {what}", self.root)));
        };
        let stage = config.stage_of_checkpoint(&record)?;
        // Names begin with the step, in digits of one width.
        let newer: Vec<Damaged> =
            listing.damaged.into_iter().filter(|damaged| damaged.name > record.name).collect();
        warn_of(&newer, &record);
        Ok((record, stage))
    }
}

/// A checkpoint, and the damaged ones that are newer.
#[derive(Debug)]
struct Choice {
    record: CheckpointRecord,
    passed_over: Vec<Damaged>,
}

fn warn_of(passed_over: &[Damaged], taken: &CheckpointRecord) {
    for damaged in passed_over {
        eprintln!(
            "warning: checkpoint {} is newer and damaged: {}; {} is taken",
            damaged.name, damaged.reason, taken.name
        );
    }
}

/// A checkpoint that is not what its COMMIT says is bad input; a store that fails is a failure.
fn damaged(error: RunError) -> CliError {
    match error {
        RunError::Checkpoint { .. } => CliError::BadInput(error.to_string()),
        error => error.into(),
    }
}

/// Reads a checkpoint whole, every part compared with its COMMIT; one that holds a NaN or an infinity is
/// refused.
pub(crate) async fn read_state(root: &Location, record: &CheckpointRecord) -> Result<NamedState, CliError> {
    let state = match read_checkpoint(&Catalogue::new(root).folder(&record.name)).await {
        Ok((_, state)) => state,
        Err(error @ WorkerError::Checkpoint { .. }) => return Err(CliError::BadInput(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    state.check_finite()?;
    Ok(state)
}

async fn list(arguments: &CheckpointTarget) -> Result<Exit, CliError> {
    let target = Target::resolve(&arguments.target).await?;
    let listing = Catalogue::new(&target.root).list().await?;
    for damaged in &listing.damaged {
        if arguments.json {
            print_json(&json!({ "name": damaged.name, "damaged": damaged.reason }))?;
        } else {
            eprintln!("warning: checkpoint {} is damaged: {}", damaged.name, damaged.reason);
        }
    }
    for record in &listing.valid {
        let bytes: u64 = record.objects().map(|object| object.length).sum();
        let samples: u64 = record.coverage.iter().map(|(_, used)| used.samples).sum();
        if arguments.json {
            print_json(&json!({
                "name": record.name, "step": record.step, "stage": record.stage, "stage_name": record.stage_name,
                "task": record.task, "epoch": record.epoch,
                "parts": record.parts.len(), "bytes": bytes, "samples": samples, "coverage": record.coverage,
                "values": record.values,
            }))?;
        } else {
            let (parts, megabytes) = (record.parts.len(), bytes as f64 / 1e6);
            print_text(&format!(
                "{}  step {:<8} stage {}  epoch {:<4} samples {samples:<10} parts {parts}  {megabytes:.1} MB\n",
                record.name, record.step, record.stage, record.epoch
            ))?;
        }
    }
    if listing.valid.is_empty() {
        if listing.damaged.is_empty() {
            must_be_run(&target.root).await?;
        }
        eprintln!("{} has no checkpoint that can be used", target.root);
    }
    Ok(Exit::Done)
}

async fn verify(arguments: &CheckpointTarget) -> Result<Exit, CliError> {
    let target = Target::resolve(&arguments.target).await?;
    let verified = async {
        let named = target.newest().await?;
        let record = Catalogue::new(&target.root).verify(&named.name).await.map_err(damaged)?;
        read_state(&target.root, &record).await?;
        Ok::<_, CliError>(record)
    };
    let record = match verified.await {
        Ok(record) => record,
        Err(error) => {
            if arguments.json && error.exit() == Exit::BadInput {
                print_json(&json!({ "ok": false, "reason": error.to_string() }))?;
            }
            return Err(error);
        }
    };
    if arguments.json {
        let objects = record.objects().count();
        print_json(&json!({ "name": record.name, "step": record.step, "objects": objects, "ok": true }))?;
    } else {
        print_text(&format!(
            "{}: all {} parts and the list of quarantined rows are whole, and all values are finite\n",
            record.name,
            record.parts.len()
        ))?;
    }
    Ok(Exit::Done)
}

async fn digest(arguments: &CheckpointTarget) -> Result<Exit, CliError> {
    let target = Target::resolve(&arguments.target).await?;
    let record = target.newest().await?;
    let digest = read_state(&target.root, &record).await?.digest();
    if arguments.json {
        print_json(&json!({ "digest": digest, "step": record.step, "name": record.name }))?;
    } else {
        print_text(&format!("{digest}  {}\n", record.step))?;
    }
    Ok(Exit::Done)
}

async fn export(arguments: &ExportArguments) -> Result<Exit, CliError> {
    let layout = layout(arguments)?;
    let target = Target::resolve(&arguments.checkpoint.target).await?;
    let config = stored_configuration(&target.root).await?.worker().with_models_here().await?;
    // The newest of a stage that the layout is made of.
    let what = format!("a stage that has the layout {layout:?}");
    let (record, stage) = target
        .record_of_stage(&config, &what, |stage| stage.settings.task.layouts().contains(&layout))
        .await?;
    let state = read_state(&target.root, &record).await?;
    let out = arguments.out.clone();
    let precision = match arguments.dtype {
        PrecisionArgument::F32 => Precision::F32,
        PrecisionArgument::F16 => Precision::F16,
        PrecisionArgument::Bf16 => Precision::Bf16,
    };
    let options = ExportOptions { precision, shard_bytes: arguments.shard_size };
    tokio::task::spawn_blocking(move || write_layout(&config, &stage, &state, layout, &options, &out))
        .await
        .map_err(|error| CliError::failed(format!("the export thread failed: {error}")))??;
    if arguments.checkpoint.json {
        print_json(&json!({ "name": record.name, "step": record.step, "out": arguments.out }))?;
    } else {
        eprintln!("checkpoint {} is in {}", record.name, arguments.out.display());
    }
    Ok(Exit::Done)
}

/// The layout asked for, where `--out` can hold it.
fn layout(arguments: &ExportArguments) -> Result<Layout, CliError> {
    let out = arguments.out.display();
    if std::fs::symlink_metadata(&arguments.out).is_ok() {
        return Err(CliError::usage(format!("--out {out}: this exists already; name a new one")));
    }
    let is_file = arguments.out.extension().is_some_and(|end| end == "pth" || end == "safetensors");
    match arguments.layout {
        LayoutArgument::Huggingface => Ok(Layout::HuggingFace),
        LayoutArgument::Retrieval => Ok(Layout::Retrieval),
        LayoutArgument::Peft => Ok(Layout::Peft),
        LayoutArgument::Lavis if is_file => Ok(Layout::Lavis),
        LayoutArgument::Lavis => Err(CliError::usage(format!(
            "--out {out}: LAVIS's layout is a file; name one that ends in .pth or .safetensors"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_and_a_checkpoint_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("run/checkpoints/00000020-000001");
        std::fs::create_dir_all(&checkpoint).unwrap();
        let run = folder.path().join("run").display().to_string();
        let target = Target::resolve(&format!("{run}/")).await.unwrap();
        assert!(target.name.is_none());
        std::fs::write(checkpoint.join(COMMIT), "{}").unwrap();
        let target = Target::resolve(&checkpoint.display().to_string()).await.unwrap();
        assert_eq!(target.name.as_deref(), Some("00000020-000001"));
        assert_eq!(target.root.to_string(), Location::parse(&run).unwrap().to_string());
        std::fs::write(folder.path().join(COMMIT), "{}").unwrap();
        assert!(Target::resolve(&folder.path().display().to_string()).await.is_err());
    }
}
