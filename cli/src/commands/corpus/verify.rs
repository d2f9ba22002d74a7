//! `corpus verify`: whether all of a corpus is in order.

use std::collections::BTreeMap;

use blip2_dataset::corpus::verify::{Finding, VerifySpec, VerifySummary, verify_corpus};
use clap::Args;
use serde_json::json;

use super::columns::ColumnArguments;
use super::ingest::threads;
use crate::commands::{print_json, print_text};
use crate::error::CliError;
use crate::typed_numbers;
use blip2_run::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Files, patterns, or folders that `corpus ingest` wrote.
    #[arg(value_name = "CORPUS", required = true)]
    corpus: Vec<String>,
    /// Compare footers, lengths and records alone; no row is read.
    #[arg(long)]
    quick: bool,
    /// Pictures of more pixels are a finding.
    #[arg(long, value_name = "N", default_value_t = 200_000_000, value_parser = typed_numbers::pixels)]
    max_pixels: u64,
    /// Decode threads; 0 takes all cores.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = typed_numbers::threads)]
    threads: usize,
    #[command(flatten)]
    columns: ColumnArguments,
    /// Print findings and summary as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Checks; any finding is exit code 3.
pub(crate) async fn run(arguments: VerifyArguments) -> Result<Exit, CliError> {
    let spec = VerifySpec {
        sources: arguments.corpus,
        columns: arguments.columns.names()?,
        max_pixels: arguments.max_pixels,
        quick: arguments.quick,
        threads: threads(arguments.threads),
    };
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut printed = Ok(());
    let summary = verify_corpus(&spec, |finding| {
        *counts.entry(finding.kind.name()).or_insert(0) += 1;
        if printed.is_ok() {
            printed = match arguments.json {
                true => print_json(finding),
                false => print_text(&line(finding)),
            };
        }
    })
    .await
    .map_err(CliError::of_typed)?;
    printed?;
    match arguments.json {
        true => print_json(&json!({ "summary": summary, "counts": counts, "ok": summary.findings == 0 }))?,
        false => eprintln!("{}", described(&summary, &counts, spec.quick)),
    }
    Ok(if summary.findings == 0 { Exit::Done } else { Exit::BadInput })
}

fn line(finding: &Finding) -> String {
    let mut place = finding.file.clone();
    if let Some(row_group) = finding.row_group {
        place += &format!(", row group {row_group}");
    }
    if let Some(row) = finding.row {
        place += &format!(", row {row}");
    }
    if let Some(key) = &finding.key {
        place += &format!(" ({key:?})");
    }
    format!("{}: {place}: {}\n", finding.kind.name(), finding.detail)
}

fn described(summary: &VerifySummary, counts: &BTreeMap<&str, u64>, quick: bool) -> String {
    let VerifySummary { files, row_groups, rows, not_downloaded, findings } = summary;
    let looked = match quick {
        true => format!("{files} files, {row_groups} row groups; no row was read"),
        false => format!("{files} files, {row_groups} row groups, {rows} rows"),
    };
    let looked = match not_downloaded {
        0 => looked,
        failed => format!("{looked}, of which {failed} were not downloaded"),
    };
    if *findings == 0 {
        return format!("{looked}: all in order");
    }
    let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!("{looked}: {findings} findings ({})", counts.join(", "))
}
