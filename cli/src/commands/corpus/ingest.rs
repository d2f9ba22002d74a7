//! `corpus ingest`: published data sets to the layout that training reads.

use blip2_dataset::corpus::ingest::{IngestSettings, IngestSummary, Share, SourceKind, ingest};
use blip2_run::exit::Exit;
use blip2_store::Location;
use clap::Args;

use super::columns::ColumnArguments;
use crate::commands::print_json;
use crate::commands::share::share;
use crate::error::CliError;
use crate::places::typed_location;
use crate::typed_numbers;

#[derive(Debug, Args)]
pub(crate) struct IngestArguments {
    /// What the sources are: img2dataset (any Parquet with pictures, also of Hugging Face), webdataset, coco,
    /// visual-genome, cc3m, cc12m, sbu, laion, folder (pictures with `.txt` beside them), csv, tsv or jsonl.
    #[arg(long, value_name = "KIND")]
    from: SourceKind,
    /// Path, URL, folder or pattern (`*`, `?`, `[a-z]`, `**`, `{a,b}`, `{00000..01243}`); may be repeated.
    #[arg(long, value_name = "PATH_OR_URL", required = true, num_args = 1..)]
    source: Vec<String>,
    /// Folder or prefix to write to. A job that was stopped goes on when it is given again.
    #[arg(long, value_name = "DIR_OR_URL")]
    out: String,
    /// Folder or prefix of the pictures, for the kinds whose sources only name them; of csv, tsv and jsonl,
    /// without it, the list's own.
    #[arg(long, value_name = "DIR_OR_URL")]
    images: Option<String>,
    /// How a picture is named there, of `{row}`, `{key}`, `{shard}` and `{url_file}`.
    #[arg(long, value_name = "TEMPLATE")]
    image_name: Option<String>,
    /// Splits of Karpathy's file to use, with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "train,restval")]
    split: Vec<String>,
    /// Make pictures smaller whose shorter side is longer than this, as JPEG.
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..))]
    short_side: Option<u32>,
    /// Encode every picture as JPEG of this quality; without it, those made smaller get 95 and others stay as
    /// they are.
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=100))]
    jpeg_quality: Option<u8>,
    /// Leave out pictures whose shorter side is shorter than this.
    #[arg(long, value_name = "PX", default_value_t = 1)]
    min_side: u32,
    /// Leave out pictures of more pixels.
    #[arg(long, value_name = "N", default_value_t = 200_000_000, value_parser = typed_numbers::pixels)]
    max_pixels: u64,
    /// Captions to keep of a row; without it, two of a web archive's ranked list, all of others.
    #[arg(long, value_name = "N", value_parser = typed_numbers::some)]
    max_captions: Option<usize>,
    /// Length of a file, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=8192))]
    file_mib: u64,
    /// Row groups of a file.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    row_groups: u32,
    /// Rows that are done, and done again after a stop, as a whole, of sources that are lists.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    unit_rows: u64,
    /// Do the I-th of N shares of the job, from 0, for several machines.
    #[arg(long, value_name = "I/N", value_parser = share, default_value = "0/1")]
    share: Share,
    /// Decode threads; 0 takes all cores.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = typed_numbers::threads)]
    threads: usize,
    #[command(flatten)]
    columns: ColumnArguments,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Ingests, and says what cannot be used.
pub(crate) async fn run(arguments: IngestArguments) -> Result<Exit, CliError> {
    let defaults = IngestSettings::new(arguments.from);
    let settings = IngestSettings {
        images: arguments.images,
        image_name: arguments.image_name,
        splits: arguments.split,
        columns: arguments.columns.names()?,
        short_side: arguments.short_side,
        jpeg_quality: arguments.jpeg_quality,
        min_side: arguments.min_side,
        max_pixels: arguments.max_pixels,
        max_captions: arguments.max_captions.unwrap_or(defaults.max_captions),
        file_bytes: arguments.file_mib << 20,
        row_groups: arguments.row_groups,
        unit_rows: arguments.unit_rows,
        threads: threads(arguments.threads),
        ..defaults
    };
    let out = typed_location(&arguments.out)?;
    let json = arguments.json;
    let progress = |summary: &IngestSummary| match json {
        // A reader that went away shows when the summary is printed.
        true => drop(print_json(summary)),
        false => eprintln!(
            "unit {}/{}: {} rows of {}, {} files",
            summary.units_done, summary.units, summary.rows, summary.rows_read, summary.files
        ),
    };
    let summary = ingest(&arguments.source, &out, settings, arguments.share, progress)
        .await
        .map_err(CliError::of_typed)?;
    match json {
        true => print_json(&summary)?,
        false => eprintln!("{}", described(&summary, &out)),
    }
    match summary.damaged.as_slice() {
        [] => Ok(Exit::Done),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            Err(CliError::BadInput(format!(
                "{first}{more}; all else is in {out}: write the source again, or go on without it"
            )))
        }
    }
}

/// All cores, or so many.
pub(super) fn threads(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        wanted => wanted,
    }
}

fn described(summary: &IngestSummary, out: &Location) -> String {
    let mut text = format!(
        "{out}: {} rows of {} in {} files, {:.1} MB",
        summary.rows,
        summary.rows_read,
        summary.files,
        summary.bytes as f64 / 1e6
    );
    for (reason, count) in &summary.rejected {
        text += &format!("\n  {count} rows: {reason}");
    }
    if !summary.rejected.is_empty() {
        text += "\n  (each of them is in rejected/)";
    }
    for damaged in &summary.damaged {
        text += &format!("\n  {damaged}");
    }
    if summary.units_done < summary.units {
        text += &format!("\n  {} units are left to other shares", summary.units - summary.units_done);
    }
    text
}
