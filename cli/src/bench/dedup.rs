//! `bench dedup`: duplicates among made-up pictures.

use std::path::PathBuf;
use std::time::Instant;

use blip2_curation::dedup::{DedupRule, DuplicateFinder, DuplicateList, ImageHash};
use blip2_random::KeyedRng;
use blip2_run::exit::Exit;
use clap::Args;
use serde::Serialize;

use super::printing::measure_and_print;
use crate::error::CliError;
use blip2_telemetry::process::peak_memory_bytes;

/// One picture in so many is a copy of an earlier one, and one in so many nearly one.
const ONE_IN: u64 = 20;
/// Rows of a made-up task.
const TASK_ROWS: u64 = 10_000;

/// How many pictures, and how duplicates are found.
#[derive(Debug, Clone, Args)]
pub(crate) struct DedupArguments {
    /// Pictures.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 40), value_name = "N")]
    rows: u64,
    /// Bits in which near duplicates may differ, 0 to 3; without it, exact ones alone are looked for.
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=3), value_name = "N")]
    near_bits: Option<u32>,
    /// Folder for sorting.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Memory to sort in, MiB.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20), value_name = "MIB")]
    sort_mib: u32,
    /// Print one JSON line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    rows: u64,
    planted: u64,
    found: usize,
    seconds: f64,
    rows_per_s: f64,
    peak_bytes: Option<u64>,
}

/// Measures.
pub(super) async fn run(arguments: DedupArguments) -> Result<Exit, CliError> {
    let json = arguments.json;
    measure_and_print(json, move || measure(&arguments), described).await
}

fn measure(arguments: &DedupArguments) -> Result<Report, CliError> {
    let rule = DedupRule { near_bits: arguments.near_bits };
    let scratch = arguments.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let began = Instant::now();
    let mut finder = DuplicateFinder::new(rule, &scratch, (arguments.sort_mib as usize) << 20)?;
    let mut planted = 0;
    for row in 0..arguments.rows {
        let (hash, is_duplicate) = made_up(row, arguments.near_bits);
        planted += u64::from(is_duplicate);
        finder.push(hash)?;
    }
    let found = DuplicateList::from_parquet(finder.finish()?)?.len();
    let seconds = began.elapsed().as_secs_f64();
    let rows_per_s = arguments.rows as f64 / seconds;
    Ok(Report { rows: arguments.rows, planted, found, seconds, rows_per_s, peak_bytes: peak_memory_bytes() })
}

/// Draws of a row; the first says what it is: 0 a copy, 1 nearly a copy, else an original.
fn draws(row: u64) -> (u64, KeyedRng) {
    let mut draws = KeyedRng::new(1, "dedup", &[row]);
    let kind = draws.below(ONE_IN);
    (kind, draws)
}

/// The picture of a row, and whether an earlier one is the same under the rule.
fn made_up(row: u64, near_bits: Option<u32>) -> (ImageHash, bool) {
    let (mut kind, mut draws_of_row) = draws(row);
    let of = if kind < 2 && row > 0 { draws_of_row.below(row) } else { row };
    // The first row has nothing to copy, and copies are not copied.
    if of == row || draws(of).0 < 2 {
        kind = ONE_IN;
    }
    let of = if kind < 2 { of } else { row };
    let mut hash = KeyedRng::new(2, "picture", &[of]).below(u64::MAX);
    if kind == 1 {
        (0..near_bits.unwrap_or_default()).for_each(|_| hash ^= 1 << draws_of_row.below(64));
    }
    let mut sha256 = [0; 32];
    sha256[..8].copy_from_slice(&of.to_be_bytes());
    // What is nearly a copy has bytes of its own.
    sha256[8..16].copy_from_slice(&if kind == 1 { row } else { 0 }.to_be_bytes());
    let place = [(row / TASK_ROWS) as u32, 0, (row % TASK_ROWS) as u32];
    (ImageHash { place, sha256, perceptual_hash: hash }, kind == 0 || (kind == 1 && near_bits.is_some()))
}

fn described(report: &Report) -> String {
    let peak = report.peak_bytes.map_or(String::new(), |bytes| format!(", {} MiB at most", bytes >> 20));
    format!(
        "{} rows in {:.1} s: {:.0} rows/s{peak}; {} duplicates found, {} planted\n",
        report.rows, report.seconds, report.rows_per_s, report.found, report.planted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_planted_is_found() {
        let arguments =
            |near_bits| DedupArguments { rows: 20_000, near_bits, scratch: None, sort_mib: 1, json: false };
        let exact = measure(&arguments(None)).unwrap();
        assert!(exact.planted > 700, "{exact:?}");
        let near = measure(&arguments(Some(3))).unwrap();
        assert!(near.planted > 1700, "{near:?}");
        for report in [exact, near] {
            assert_eq!(report.found as u64, report.planted, "{report:?}");
        }
    }
}
