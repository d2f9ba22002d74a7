//! How long an audit takes, on a corpus that is made up.

use std::time::Instant;

use blip2_dataset::corpus::manifest::{Manifest, ManifestFile};
use blip2_dataset::plan::PlanKey;
use blip2_dataset::plan::audit::{AuditSpec, audit_stage};
use serde::Serialize;

use crate::error::CliError;
use blip2_telemetry::process::peak_memory_bytes;

/// Slots of the run that is made up, and a slot's share of the batch: 1,680 samples a step.
const SLOTS: u32 = 16;
const BATCH_PER_SLOT: u32 = 105;
const WINDOW_ROW_GROUPS: u32 = 4;
/// Steps between its checkpoints.
const CHECKPOINT_EVERY: u64 = 1000;

/// The size of a corpus.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Corpus {
    pub(crate) files: u32,
    pub(crate) row_groups: u32,
    pub(crate) rows_per_group: u32,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) rows: u64,
    pub(crate) samples: u64,
    pub(crate) checkpoints: usize,
    pub(crate) threads: usize,
    pub(crate) seconds: f64,
    pub(crate) samples_per_s: f64,
    /// Most memory that this process has held; absent where the system does not say.
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) exact: bool,
}

/// Audits one epoch of a made-up corpus, rounded down to whole steps.
pub(crate) fn simulate(corpus: Corpus, threads: usize) -> Result<Measured, CliError> {
    let started = Instant::now();
    let file = |index: u32| ManifestFile {
        location: format!("s3://corpus/part-{index:05}.parquet"),
        bytes: 1 << 30,
        etag: None,
        row_groups: vec![corpus.rows_per_group; corpus.row_groups as usize],
        failed: Vec::new(),
    };
    let manifest = Manifest::of((0..corpus.files).map(file).collect());
    let steps = manifest.rows() / u64::from(SLOTS * BATCH_PER_SLOT);
    let marks: Vec<u64> =
        (CHECKPOINT_EVERY..steps).step_by(CHECKPOINT_EVERY as usize).chain([steps]).collect();
    let audit = audit_stage(&AuditSpec {
        manifest: &manifest,
        key: PlanKey { seed: 42, stage: 1 },
        slots: SLOTS,
        window_row_groups: WINDOW_ROW_GROUPS,
        batch_per_slot: BATCH_PER_SLOT,
        marks: &marks,
        quarantined: &[],
        threads,
    })?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Measured {
        rows: audit.uses.rows,
        samples: audit.uses.samples,
        checkpoints: marks.len(),
        threads,
        seconds,
        samples_per_s: audit.uses.samples as f64 / seconds,
        peak_bytes: peak_memory_bytes(),
        exact: audit.uses.is_exact(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_corpus_is_audited_whole() {
        let corpus = Corpus { files: 13, row_groups: 10, rows_per_group: 993 };
        let measured = simulate(corpus, 2).unwrap();
        assert_eq!((measured.rows, measured.samples), (129_090, 129_090 / 1680 * 1680));
        assert!(measured.exact && measured.seconds > 0.0, "{measured:?}");
        #[cfg(target_os = "linux")]
        assert!(measured.peak_bytes.unwrap() > 0);
    }
}
