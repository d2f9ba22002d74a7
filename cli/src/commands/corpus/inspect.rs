//! `corpus inspect`: a contact sheet and distributions.

use std::path::PathBuf;

use blip2_dataset::corpus::survey::{Survey, SurveySpec, survey};
use blip2_pages::histogram::Histogram;
use blip2_run::exit::Exit;
use clap::Args;
use serde_json::json;

use super::columns::ColumnArguments;
use super::sheet::{histograms, render};
use crate::commands::print_json;
use crate::error::CliError;
use crate::report;
use crate::typed_numbers;

#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// Parquet files, folders or patterns.
    #[arg(value_name = "CORPUS", required = true)]
    corpus: Vec<String>,
    /// HTML file to write.
    #[arg(long, value_name = "FILE", default_value = "corpus.html")]
    out: PathBuf,
    /// Pictures to show.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = typed_numbers::count)]
    pictures: usize,
    /// Row groups to read, evenly spaced.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = typed_numbers::some)]
    row_groups: usize,
    /// Pictures of more pixels are not shown.
    #[arg(long, value_name = "N", default_value_t = 200_000_000, value_parser = typed_numbers::pixels)]
    max_pixels: u64,
    #[command(flatten)]
    columns: ColumnArguments,
    /// Print the numbers as a JSON line.
    #[arg(long)]
    json: bool,
}

/// Looks, and writes the sheet.
pub(crate) async fn run(arguments: InspectArguments) -> Result<Exit, CliError> {
    let spec = SurveySpec {
        sources: arguments.corpus,
        columns: arguments.columns.names()?,
        row_groups: arguments.row_groups,
        images: arguments.pictures,
        max_pixels: arguments.max_pixels,
    };
    let seen = survey(&spec).await.map_err(CliError::of_typed)?;
    let distributions = histograms(&seen);
    report::write_page(&render(&seen, &distributions), &arguments.out)?;
    match arguments.json {
        true => print_json(&numbers(&seen, &distributions, &arguments.out))?,
        false => eprintln!(
            "{}: {} rows in {} files; {} of {} rows read cannot be used",
            arguments.out.display(),
            seen.rows,
            seen.files,
            seen.unusable.len(),
            seen.unusable.len() + seen.sizes.len()
        ),
    }
    Ok(Exit::Done)
}

fn numbers(seen: &Survey, distributions: &[Histogram], out: &std::path::Path) -> serde_json::Value {
    let histograms: serde_json::Map<_, _> = distributions
        .iter()
        .map(|histogram| {
            let bars: Vec<_> = histogram
                .bars
                .iter()
                .map(|(label, count)| json!({ "label": label, "count": count }))
                .collect();
            (histogram.name.to_owned(), json!(bars))
        })
        .collect();
    let unusable: Vec<_> = seen
        .unusable
        .iter()
        .map(|row| json!({ "file": row.file, "key": row.key, "reason": row.reason }))
        .collect();
    json!({
        "files": seen.files, "row_groups": seen.row_groups, "rows": seen.rows, "not_downloaded": seen.not_downloaded,
        "rows_read": seen.sizes.len() + seen.unusable.len(), "unusable": unusable, "histograms": histograms, "out": out,
    })
}
