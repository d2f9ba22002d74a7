//! `corpus`: a corpus before it is trained on.

mod plan;
mod plan_text;
mod simulation;

use clap::{Args, Subcommand};

use crate::error::CliError;
use crate::exit::Exit;

/// What to do with a corpus.
#[derive(Debug, Args)]
pub(crate) struct CorpusArguments {
    #[command(subcommand)]
    command: CorpusCommand,
}

#[derive(Debug, Subcommand)]
enum CorpusCommand {
    /// Measure how a plan shuffles and what it costs to read, for a corpus or for one that is made up.
    Plan(plan::PlanArguments),
}

/// Does it.
pub(crate) async fn run(arguments: CorpusArguments) -> Result<Exit, CliError> {
    match arguments.command {
        CorpusCommand::Plan(arguments) => plan::run(arguments).await,
    }
}
