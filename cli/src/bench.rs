//! `bench`: measurements of parts of the program.

mod allreduce;
mod coordinator;
mod curate;
mod dedup;
mod encode;
mod generate;
mod loader;
mod printing;
mod process;
mod rounds;
mod step;

use clap::{Args, Subcommand};

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
    /// Coordinate members that compute nothing: how long a commit takes, and what memory.
    Coordinator(coordinator::CoordinatorBenchArguments),
    /// Caption and score pictures as `curate` does, and say how fast, phase by phase.
    Curate(curate::CurateArguments),
    /// Find duplicates among made-up pictures.
    Dedup(dedup::DedupArguments),
    /// Time the forward pass of a frozen image encoder.
    Encode(encode::EncodeArguments),
    /// Load batches as training does and say how fast, stage by stage.
    Loader(loader::LoaderArguments),
    /// Time training steps over made-up pictures and texts, part by part.
    Step(step::StepArguments),
    /// One member of `bench allreduce`, which starts it.
    #[command(hide = true)]
    AllreduceMember(allreduce::member::MemberArguments),
    /// The members of `bench coordinator`, which starts them.
    #[command(hide = true)]
    CoordinatorMembers(coordinator::members::MembersArguments),
    /// Time how a language model reads prompts and writes texts.
    Generate(generate::GenerateArguments),
}

impl BenchArguments {
    /// Whether training steps are measured, or a part of them.
    pub(crate) fn trains(&self) -> bool {
        matches!(self.command, BenchCommand::Step(_) | BenchCommand::Encode(_))
    }
}

/// Measures.
pub(crate) async fn run(arguments: BenchArguments) -> Result<Exit, CliError> {
    match arguments.command {
        BenchCommand::Allreduce(arguments) => allreduce::run(arguments).await,
        BenchCommand::Coordinator(arguments) => coordinator::run(arguments).await,
        BenchCommand::Curate(arguments) => curate::run(arguments).await,
        BenchCommand::Dedup(arguments) => dedup::run(arguments).await,
        BenchCommand::Encode(arguments) => encode::run(arguments).await,
        BenchCommand::Loader(arguments) => loader::run(arguments).await,
        BenchCommand::Step(arguments) => step::run(arguments).await,
        BenchCommand::AllreduceMember(arguments) => allreduce::member::run(arguments).await,
        BenchCommand::CoordinatorMembers(arguments) => coordinator::members::run(arguments).await,
        BenchCommand::Generate(arguments) => generate::run(arguments).await,
    }
}
