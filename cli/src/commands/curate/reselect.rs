//! `curate reselect`: another selection from scores that are there.

use std::path::PathBuf;

use blip2_curation::dedup::{DedupRule, MAX_NEAR_BITS};
use blip2_curation::finish::CurationSummary;
use blip2_curation::job::CurationJob;
use blip2_curation::reselect::{Reselection, reselect};
use blip2_dataset::corpus::ingest::Share;
use clap::{Args, ValueEnum};

use super::summary::described;
use crate::commands::print_json;
use crate::commands::share::share;
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::places::typed_location;
use blip2_run::exit::Exit;

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
    /// Leave out rows whose picture has the same bytes as an earlier one's (`exact`), or looks like it
    /// (`near`).
    #[arg(long, value_enum)]
    dedup: Option<Dedup>,
    /// Bits of 64 in which the hashes of pictures that look alike may differ.
    #[arg(long, value_name = "N", default_value_t = MAX_NEAR_BITS, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_NEAR_BITS)))]
    near_bits: u32,
    /// Folder on this machine for sorting: about 100 bytes a row.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Memory to sort in, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    sort_mib: u32,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Which pictures are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dedup {
    /// Those of the same bytes.
    Exact,
    /// Those that look alike too.
    Near,
}

/// Selects and writes.
pub(super) async fn run(arguments: ReselectArguments) -> Result<Exit, CliError> {
    let selection = load(&arguments.config)?.config.curation.selection;
    let place = typed_location;
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
    let rule = |dedup| DedupRule { near_bits: (dedup == Dedup::Near).then_some(arguments.near_bits) };
    let wanted = Reselection {
        selection,
        dedup: arguments.dedup.map(rule),
        share: arguments.shard,
        scratch: arguments.scratch.unwrap_or_else(std::env::temp_dir),
        memory_bytes: (arguments.sort_mib as usize) << 20,
    };
    let summary = reselect(&from, &out, &wanted, progress).await?;
    match json {
        true => print_json(&summary)?,
        false => eprintln!("{}", described(&summary, &out)),
    }
    Ok(Exit::Done)
}
