//! What `corpus plan` found, for people and for programs.

use std::fmt::Write as _;

use blip2_dataset::corpus::manifest::{Manifest, ManifestSource};
use blip2_dataset::plan::quality::PlanQuality;
use serde::Serialize;

use super::simulation::Speed;
use crate::error::CliError;

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct PlanReport {
    pub(super) files: usize,
    pub(super) row_groups: usize,
    pub(super) rows: u64,
    pub(super) corpus_bytes: u64,
    pub(super) manifest_digest: String,
    pub(super) slots: u32,
    pub(super) window_row_groups: u32,
    pub(super) workers: u32,
    pub(super) batch: u32,
    /// Seconds to list the files and to read all footers.
    pub(super) open_seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<SourceReport>,
    pub(super) quality: PlanQuality,
    #[serde(flatten)]
    pub(super) speed: Option<Speed>,
}

/// A source of the corpus.
#[derive(Debug, Serialize)]
pub(super) struct SourceReport {
    pub(super) name: String,
    pub(super) files: u32,
    pub(super) rows: u64,
    /// Its share of the samples.
    pub(super) share: f64,
    /// Samples of the whole corpus until each of its rows has been used once.
    pub(super) samples_an_epoch: f64,
}

/// The sources of a manifest with their shares; none for a corpus of one.
pub(super) fn sources_of(manifest: &Manifest) -> Result<Vec<SourceReport>, CliError> {
    let mut files = manifest.files.iter();
    let mut weighed = Vec::new();
    for source in &manifest.sources {
        let own = files.by_ref().take(source.files as usize);
        let rows: u64 = own.flat_map(|file| &file.row_groups).map(|rows| u64::from(*rows)).sum();
        weighed.push((source, rows, source.weight_of(rows)?));
    }
    let total: f64 = weighed.iter().map(|(_, _, weight)| weight).sum();
    let shown = |(source, rows, weight): (&ManifestSource, u64, f64)| SourceReport {
        name: source.name.clone(),
        files: source.files,
        rows,
        share: weight / total,
        samples_an_epoch: rows as f64 * total / weight,
    };
    Ok(weighed.into_iter().map(shown).collect())
}

/// A table.
pub(super) fn report(found: &PlanReport) -> String {
    let PlanReport { files, row_groups, rows, slots, window_row_groups, workers, batch, quality, .. } = found;
    let mut text = format!(
        "{rows} rows in {row_groups} row groups of {files} files, {}; opened in {:.1} s\n\
         {slots} slots, windows of {window_row_groups} row groups, {workers} workers, batches of {batch}\n",
        size(found.corpus_bytes as f64),
        found.open_seconds
    );
    for source in &found.sources {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  source {:<16} {:>5.1} % of the samples, {} rows, an epoch every {:.3e} samples",
            source.name,
            100.0 * source.share,
            source.rows,
            source.samples_an_epoch
        );
    }
    let percent = |share: f64| format!("{:.3} %", 100.0 * share);
    let lines = [
        ("samples walked through", quality.samples.to_string()),
        ("neighbours: median distance in rows", quality.neighbour_distance_median.to_string()),
        ("neighbours: mean distance, 1 is random", format!("{:.3}", quality.neighbour_distance_mean_ratio)),
        ("neighbours of one row group", percent(quality.neighbours_of_one_row_group)),
        ("pairs of one row group in a batch", percent(quality.batch_pairs_of_one_row_group)),
        ("  of a batch drawn at random", percent(quality.random_pairs_of_one_row_group)),
        ("row groups in a batch", format!("{:.1}", quality.row_groups_in_a_batch)),
        ("row groups of a slot in a window", format!("{:.1}", quality.row_groups_of_a_part)),
        ("bytes read for a byte used", format!("{:.3}", quality.read_amplification)),
        ("bytes read for a sample", size(quality.bytes_per_sample)),
        ("read by all workers in an epoch", size(quality.egress_bytes as f64)),
        ("row groups a worker holds, at most", size(quality.cache_bytes as f64)),
        ("seconds to the first batch", format!("{:.2}", quality.first_batch_s)),
    ];
    let speed = found.speed.iter().flat_map(|speed| {
        [
            ("rows located a second, in order", format!("{:.2e}", speed.locate_per_s)),
            ("rows located a second, anywhere", format!("{:.2e}", speed.locate_anywhere_per_s)),
            ("seconds to plan and locate a far step", format!("{:.4}", speed.resume_seconds)),
            (
                "memory of this process, at most",
                speed.bytes.map_or("?".to_owned(), |bytes| size(bytes as f64)),
            ),
        ]
    });
    for (name, value) in lines.into_iter().chain(speed) {
        let _ = writeln!(text, "  {name:<40} {value}");
    }
    text
}

/// Bytes in a unit that suits them.
fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let power = (bytes.max(1.0).log2() / 10.0).floor().min(5.0);
    // Between 0 and 5.
    format!("{:.1} {}", bytes / 1024f64.powf(power), units[power as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_shown_with_their_shares() {
        let file = blip2_dataset::corpus::manifest::ManifestFile {
            location: "/c/a.parquet".into(),
            bytes: 1,
            etag: None,
            row_groups: vec![30, 10],
            failed: Vec::new(),
        };
        let source = |name: &str, weight| ManifestSource { name: name.into(), weight, files: 1 };
        let mut manifest = Manifest::of(vec![file.clone(), file]);
        assert!(sources_of(&manifest).unwrap().is_empty());
        manifest.sources = vec![source("a", Some(10.0)), source("b", None)];
        let sources = sources_of(&manifest).unwrap();
        assert_eq!((sources[0].share, sources[1].share), (0.2, 0.8));
        assert_eq!((sources[0].samples_an_epoch, sources[1].samples_an_epoch), (200.0, 50.0));
    }

    #[test]
    fn sizes_have_their_units() {
        assert_eq!(size(0.0), "0.0 B");
        assert_eq!(size(1536.0), "1.5 KiB");
        assert_eq!(size(7.5 * 1024f64.powi(4)), "7.5 TiB");
    }
}
