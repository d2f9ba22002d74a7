//! The rows of a row group: hashes, images, captions.

use blip2_images::decode::decode_image;
use rayon::prelude::*;

use super::finding::{Finding, FindingKind};
use crate::corpus::columns::{RowFault, RowGroup};
use crate::corpus::ingest::MAX_CAPTION_BYTES;
use crate::error::{DatasetError, Result};
use crate::text::is_visible;

/// Checks rows on a pool of threads.
#[derive(Debug)]
pub(super) struct RowChecks {
    max_pixels: u64,
    pool: rayon::ThreadPool,
}

/// Sums over the rows of a row group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) captions: u64,
    pub(super) image_bytes: u64,
    /// Rows whose download failed, of which nothing else is asked.
    pub(super) not_downloaded: u64,
}

impl RowChecks {
    pub(super) fn new(max_pixels: u64, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        let pool = pool.map_err(|error| DatasetError::Thread { reason: error.to_string() })?;
        Ok(Self { max_pixels, pool })
    }

    /// Findings in the order of the rows.
    pub(super) fn check(&self, group: &RowGroup, file: &str, row_group: u32) -> (Vec<Finding>, Totals) {
        let rows: Vec<_> =
            self.pool.install(|| (0..group.rows()).into_par_iter().map(|row| self.row(group, row)).collect());
        let mut totals = Totals::default();
        let mut findings = Vec::new();
        for (row, (found, sums)) in rows.into_iter().enumerate() {
            totals.captions += sums.captions;
            totals.image_bytes += sums.image_bytes;
            totals.not_downloaded += sums.not_downloaded;
            findings.extend(found.into_iter().map(|(kind, detail)| Finding {
                kind,
                file: file.to_owned(),
                row_group: Some(row_group),
                row: u32::try_from(row).ok(),
                key: Some(group.key(row)).filter(|key| !key.is_empty()),
                detail,
            }));
        }
        (findings, totals)
    }

    fn row(&self, group: &RowGroup, row: usize) -> (Vec<(FindingKind, String)>, Totals) {
        let mut found = Vec::new();
        let mut sums = Totals::default();
        match group.checked_image(row) {
            Err(RowFault::Status(_)) => return (found, Totals { not_downloaded: 1, ..sums }),
            Err(fault) => {
                let kind = match fault {
                    RowFault::NoImage => FindingKind::NoImage,
                    _ => FindingKind::WrongHash,
                };
                found.push((kind, fault.to_string()));
            }
            Ok(encoded) => {
                sums.image_bytes = encoded.len() as u64;
                if let Err(error) = decode_image(encoded, self.max_pixels) {
                    found.push((FindingKind::Undecodable, error.to_string()));
                }
            }
        }
        let captions = group.written_captions(row);
        sums.captions = captions.len() as u64;
        if !captions.iter().any(|caption| is_visible(caption)) {
            found.push((FindingKind::NoCaption, "it has no text".to_owned()));
        }
        if let Some(long) = captions.iter().map(|caption| caption.len()).find(|len| *len > MAX_CAPTION_BYTES)
        {
            let detail = format!("{long} bytes are more than {MAX_CAPTION_BYTES}");
            found.push((FindingKind::CaptionTooLong, detail));
        }
        if let Some(control) = captions.iter().flat_map(|caption| caption.chars()).find(|c| c.is_control()) {
            found.push((FindingKind::ControlCharacters, format!("U+{:04X}", u32::from(control))));
        }
        (found, sums)
    }
}
