//! `curate reselect`: another selection from scores that are there.

use blip2_dataset::{CurationJob, CurationSummary, Location, Share, reselect};
use clap::Args;

use super::summary::described;
use crate::commands::print_json;
use crate::commands::share::share;
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct ReselectArguments {
    /// Folder or prefix of the curation whose scores are there.
    #[arg(long, value_name = "DIR_OR_URL")]
    from: String,
    /// Folder or prefix to write to. A selection that was stopped goes on when it is given again.
    #[arg(long, value_name = "DIR_OR_URL")]
    out: String,
    /// The selection is `curation.selection` of this configuration; the rest of it does not matter.
    #[command(flatten)]
    config: ConfigArguments,
    /// Do the I-th of N shares, from 0, for several machines.
    #[arg(long, value_name = "I/N", value_parser = share, default_value = "0/1")]
    shard: Share,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Selects and writes.
pub(super) async fn run(arguments: ReselectArguments) -> Result<Exit, CliError> {
    let selection = load(&arguments.config)?.config.curation.selection;
    let place = |text: &str| Location::parse(text.trim_end_matches('/'));
    let from = CurationJob::open(&place(&arguments.from)?).await?;
    let out = place(&arguments.out)?;
    let json = arguments.json;
    let progress = |summary: &CurationSummary| match json {
        // A reader that went away shows when the summary is printed.
        true => drop(print_json(summary)),
        false => eprintln!(
            "task {}/{}: {} rows of {}",
            summary.tasks_done, summary.tasks, summary.rows, summary.rows_read
        ),
    };
    let summary = reselect(&from, &out, &selection, None, arguments.shard, progress).await?;
    match json {
        true => print_json(&summary)?,
        false => eprintln!("{}", described(&summary, &out)),
    }
    Ok(Exit::Done)
}
