//! `bench`: measurements of parts of the program.

mod allreduce;
mod generate;
mod loader;
mod member;
mod step;
mod tcp;

use clap::{Args, Subcommand};

use crate::error::CliError;
use crate::exit::Exit;

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
    /// Load batches as training does and say how fast, stage by stage.
    Loader(loader::LoaderArguments),
    /// Time a stage-1 training step over random image features.
    Step(step::StepArguments),
    /// One member of `bench allreduce`, which starts it.
    #[command(hide = true)]
    AllreduceMember(member::MemberArguments),
    /// Time how a language model reads prompts and writes texts.
    Generate(generate::GenerateArguments),
}

/// Measures.
pub(crate) async fn run(arguments: BenchArguments) -> Result<Exit, CliError> {
    match arguments.command {
        BenchCommand::Allreduce(arguments) => allreduce::run(arguments).await,
        BenchCommand::Loader(arguments) => loader::run(arguments).await,
        BenchCommand::Step(arguments) => step::run(arguments).await,
        BenchCommand::AllreduceMember(arguments) => member::run(arguments).await,
        BenchCommand::Generate(arguments) => generate::run(arguments).await,
    }
}
