//! `curate`: CapFilt over a pool of pictures.

mod counts;
mod page;
mod report;
mod reselect;
mod run;
mod summary;
mod worker;

use clap::{Args, Subcommand};

use crate::error::CliError;
use blip2_run::exit::Exit;

/// What to do; without a command, a pool is curated.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct CurateArguments {
    #[command(subcommand)]
    command: Option<CurateCommand>,
    #[command(flatten)]
    run: run::RunArguments,
}

#[derive(Debug, Subcommand)]
enum CurateCommand {
    /// Do tasks of a curation that another process coordinates.
    Worker(worker::WorkerArguments),
    /// Select texts anew from the scores of a curation: no model is asked.
    Reselect(reselect::ReselectArguments),
    /// Draw scores, kept shares, reasons, examples and cost of a curation (HTML).
    Report(report::ReportArguments),
}

/// Does it.
pub(crate) async fn run(arguments: CurateArguments) -> Result<Exit, CliError> {
    match arguments.command {
        None => run::run(arguments.run).await,
        Some(CurateCommand::Worker(arguments)) => worker::run(arguments).await,
        Some(CurateCommand::Reselect(arguments)) => reselect::run(arguments).await,
        Some(CurateCommand::Report(arguments)) => report::run(arguments).await,
    }
}
