//! What ingestion reads: archives, JSON lists and lines of captions.

use blip2_dataset::corpus::ingest::{IngestSettings, IngestSummary, Share, SourceKind, ingest};
use blip2_store::Location;

use crate::files::{path_of, taken, wait_for};
use crate::samples::MAX_PIXELS;

/// A tar archive of pictures and captions: whether a row was used.
pub fn archive(bytes: &[u8]) -> bool {
    ingested(SourceKind::Webdataset, "archive.tar", bytes).is_some_and(|summary| summary.rows > 0)
}

/// A JSON list of pictures' names and captions, in each of the layouts: whether a row was found.
pub fn caption_list(bytes: &[u8]) -> bool {
    [SourceKind::Coco, SourceKind::VisualGenome, SourceKind::Sbu].into_iter().fold(false, |taken, kind| {
        taken | ingested(kind, "list.json", bytes).is_some_and(|summary| summary.rows_read > 0)
    })
}

/// Lines of caption and URL, tables, and objects on lines: whether a row was found.
pub fn caption_lines(bytes: &[u8]) -> bool {
    let kinds = [SourceKind::Cc3m, SourceKind::Csv, SourceKind::Tsv, SourceKind::Jsonl];
    kinds.into_iter().fold(false, |taken, kind| {
        taken | ingested(kind, "list.tsv", bytes).is_some_and(|summary| summary.rows_read > 0)
    })
}

/// Ingests a source into a folder of its own, which goes away; its pictures lie nowhere.
///
/// # Panics
/// The summary does not account for every row, or not the bytes are blamed for what they are.
fn ingested(kind: SourceKind, name: &str, bytes: &[u8]) -> Option<IngestSummary> {
    let folder = tempfile::tempdir().expect("a folder for what is written");
    let place = |name: &str| folder.path().join(name).to_str().map(str::to_owned);
    let out = Location::parse(&place("out")?).ok()?;
    let settings = IngestSettings {
        images: if kind.names_images() { place("pictures") } else { None },
        max_pixels: MAX_PIXELS,
        max_image_bytes: 1 << 16,
        file_bytes: 1 << 20,
        unit_rows: 100,
        ..IngestSettings::new(kind)
    };
    let source = [path_of(name, bytes)];
    // A source of which no row is kept is an error at the end; what became of its rows is known before.
    let mut last = None;
    let told = |summary: &IngestSummary| last = Some(summary.clone());
    let done = taken(wait_for(ingest(&source, &out, settings, Share::WHOLE, told)));
    let summary = done.or(last)?;
    let rejected: u64 = summary.rejected.values().sum();
    assert!(summary.rows + rejected >= summary.rows_read, "a row that is neither used nor rejected");
    Some(summary)
}
