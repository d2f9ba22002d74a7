//! `models`: the published models that a run needs, fetched and looked at.

mod catalogue;
mod get;

use clap::{Args, Subcommand};

use crate::error::CliError;
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Download a published model: the needed files of one format, continued where a download was interrupted.
    Get(get::GetArguments),
    /// List the models that have a short name, with their sizes and licences.
    List(catalogue::ListArguments),
}

/// Fetches or lists.
pub(crate) async fn run(arguments: ModelsArguments) -> Result<Exit, CliError> {
    match arguments.command {
        ModelsCommand::Get(arguments) => get::run(arguments).await,
        ModelsCommand::List(arguments) => catalogue::list(&arguments),
    }
}
