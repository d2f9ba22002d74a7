//! `bench`: measurements of parts of the program.

mod allreduce;
mod curate;
mod dedup;
mod generate;
mod loader;
mod step;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::{print_json, print_text};
use crate::error::CliError;
use blip2_run::exit::Exit;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Time the sum of a buffer over member processes on this machine, beside the same bytes over bare TCP.
    Allreduce(allreduce::AllreduceArguments),
    /// Caption and score pictures as `curate` does, and say how fast, phase by phase.
    Curate(curate::CurateArguments),
    /// Find duplicates among made-up pictures.
    Dedup(dedup::DedupArguments),
    /// Load batches as training does and say how fast, stage by stage.
    Loader(loader::LoaderArguments),
    /// Time training steps over made-up pictures and texts, part by part.
    Step(step::StepArguments),
    /// One member of `bench allreduce`, which starts it.
    #[command(hide = true)]
    AllreduceMember(allreduce::member::MemberArguments),
    /// Time how a language model reads prompts and writes texts.
    Generate(generate::GenerateArguments),
}

impl BenchArguments {
    /// Whether training steps are measured.
    pub(crate) fn trains(&self) -> bool {
        matches!(self.command, BenchCommand::Step(_))
    }
}

/// Measures.
pub(crate) async fn run(arguments: BenchArguments) -> Result<Exit, CliError> {
    match arguments.command {
        BenchCommand::Allreduce(arguments) => allreduce::run(arguments).await,
        BenchCommand::Curate(arguments) => curate::run(arguments).await,
        BenchCommand::Dedup(arguments) => dedup::run(arguments).await,
        BenchCommand::Loader(arguments) => loader::run(arguments).await,
        BenchCommand::Step(arguments) => step::run(arguments).await,
        BenchCommand::AllreduceMember(arguments) => allreduce::member::run(arguments).await,
        BenchCommand::Generate(arguments) => generate::run(arguments).await,
    }
}

/// Measures on a thread that may be busy for long, and prints what it found: one JSON line, or `text` of it.
async fn report<R: Serialize + Send + 'static>(
    json: bool,
    measure: impl FnOnce() -> Result<R, CliError> + Send + 'static,
    text: fn(&R) -> String,
) -> Result<Exit, CliError> {
    let report = tokio::task::spawn_blocking(measure)
        .await
        .map_err(|error| CliError::failed(format!("the measuring thread failed: {error}")))??;
    print_report(json, &report, text)
}

fn print_report<R: Serialize>(json: bool, report: &R, text: fn(&R) -> String) -> Result<Exit, CliError> {
    match json {
        true => print_json(report)?,
        false => print_text(&text(report))?,
    }
    Ok(Exit::Done)
}

/// The upper median; a bench has one round at least.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
