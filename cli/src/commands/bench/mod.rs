//! `bench`: measurements of parts of the program.

mod allreduce;
mod loader;
mod member;
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
    /// One member of `bench allreduce`, which starts it.
    #[command(hide = true)]
    AllreduceMember(member::MemberArguments),
}

/// Measures.
pub(crate) async fn run(arguments: BenchArguments) -> Result<Exit, CliError> {
    match arguments.command {
        BenchCommand::Allreduce(arguments) => allreduce::run(arguments).await,
        BenchCommand::Loader(arguments) => loader::run(arguments).await,
        BenchCommand::AllreduceMember(arguments) => member::run(arguments).await,
    }
}
