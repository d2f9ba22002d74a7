//! `corpus`: a corpus before it is trained on.

mod columns;
mod ingest;
mod inspect;
mod plan;
mod plan_report;
mod sheet;
mod simulation;
mod verify;

use clap::{Args, Subcommand};

use crate::error::CliError;
use blip2_run::exit::Exit;

/// What to do with a corpus.
#[derive(Debug, Args)]
pub(crate) struct CorpusArguments {
    #[command(subcommand)]
    command: CorpusCommand,
}

#[derive(Debug, Subcommand)]
enum CorpusCommand {
    /// Write a published data set in the layout that training reads.
    Ingest(Box<ingest::IngestArguments>),
    /// Draw a contact sheet with captions and distributions (HTML).
    Inspect(inspect::InspectArguments),
    /// Check footers, hashes, pictures and captions; any finding is exit code 3.
    Verify(verify::VerifyArguments),
    /// Measure how a plan shuffles and what it costs to read, for a corpus or for one that is made up.
    Plan(plan::PlanArguments),
}

/// Does it.
pub(crate) async fn run(arguments: CorpusArguments) -> Result<Exit, CliError> {
    match arguments.command {
        CorpusCommand::Ingest(arguments) => ingest::run(*arguments).await,
        CorpusCommand::Inspect(arguments) => inspect::run(arguments).await,
        CorpusCommand::Verify(arguments) => verify::run(arguments).await,
        CorpusCommand::Plan(arguments) => plan::run(arguments).await,
    }
}
