//! `models`: the published models that a run needs, fetched and looked at.

mod catalogue;
mod check;
mod get;

use clap::{Args, Subcommand};

use crate::error::CliError;
use blip2_run::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Download a published model: the needed files of one format, continued where a download was
    /// interrupted. HF_TOKEN opens private and gated models, HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1
    /// forbids the network.
    Get(get::GetArguments),
    /// Show the models of a configuration: files, shapes, tokenizers, what would be trained, and all that
    /// does not fit (exit code 78). Only headers are read; models at URLs are fetched first.
    Check(check::CheckArguments),
    /// List the models that have a short name, with their sizes and licences.
    List(catalogue::ListArguments),
}

/// Fetches, checks or lists.
pub(crate) async fn run(arguments: ModelsArguments) -> Result<Exit, CliError> {
    match arguments.command {
        ModelsCommand::Get(arguments) => get::run(arguments).await,
        ModelsCommand::Check(arguments) => check::run(arguments).await,
        ModelsCommand::List(arguments) => catalogue::list(&arguments),
    }
}
