//! Parquet: what pins a corpus, the list of bad rows, and corpus files from the footer to the rows.

use std::cell::OnceCell;
use std::future::Future;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::corpus::samples::read_all;
use blip2_dataset::corpus::verify::{VerifySpec, verify_corpus};
use blip2_dataset::error::DatasetError;
use blip2_dataset::plan::{Plan, PlanKey};
use blip2_dataset::quarantine::QuarantineList;
use bytes::Bytes;

use crate::samples::MAX_PIXELS;

/// Row groups up to which a plan is drawn up.
const PLANNED_GROUPS: usize = 1 << 16;

/// A pinned corpus, and the plan over it.
pub fn manifest(bytes: &[u8]) -> bool {
    let Ok(manifest) = Manifest::from_parquet(Bytes::copy_from_slice(bytes)) else { return false };
    manifest.digest();
    let groups: usize = manifest.files.iter().map(|file| file.row_groups.len()).sum();
    if groups > PLANNED_GROUPS {
        return true;
    }
    if let Ok(plan) = Plan::new(&manifest, PlanKey { seed: 1, stage: 1 }, 4, 2) {
        for position in [0, 1, plan.part_rows(), u64::from(u32::MAX)] {
            plan.locate(3, position);
        }
    }
    true
}

/// A list of bad rows.
pub fn quarantine(bytes: &[u8]) -> bool {
    let Ok(list) = QuarantineList::from_parquet(Bytes::copy_from_slice(bytes)) else { return false };
    list.to_parquet().is_ok()
}

/// A corpus file: its footer, its row groups, their rows.
///
/// # Panics
/// The store or a thread is blamed for what the bytes are.
pub fn corpus(bytes: &[u8]) -> bool {
    let sources = [path_of("corpus.parquet", bytes)];
    let columns = ColumnNames::default();
    if taken(wait_for(Manifest::open(&sources, &columns))).is_none() {
        return false;
    }
    taken(wait_for(read_all(&sources, &columns, MAX_PIXELS))).is_some_and(|set| !set.samples.is_empty())
}

/// A corpus file as `corpus verify` checks it, with what its footer records of row groups.
///
/// # Panics
/// A file that is wrong is an error in place of a finding.
pub fn verification(bytes: &[u8]) -> bool {
    let spec = VerifySpec {
        sources: vec![path_of("verified.parquet", bytes)],
        columns: ColumnNames::default(),
        max_pixels: MAX_PIXELS,
        quick: false,
        threads: 1,
    };
    let summary = wait_for(verify_corpus(&spec, |_| ())).expect("what is wrong with a file is a finding");
    summary.findings == 0
}

/// What was made of the bytes; none if they were refused, which must be their fault.
pub(crate) fn taken<T>(outcome: Result<T, DatasetError>) -> Option<T> {
    if let Err(error) = &outcome {
        assert!(error.is_bad_input(), "not the bytes are blamed: {error}");
    }
    outcome.ok()
}

/// Path of a file of these bytes, in a folder that this thread keeps.
pub(crate) fn path_of(name: &str, bytes: &[u8]) -> String {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a folder for the file");
    }
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("the file can be written");
        path.to_str().expect("temporary folders have UTF-8 names").to_owned()
    })
}

/// Runs to the end on this thread.
pub(crate) fn wait_for<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: OnceCell<tokio::runtime::Runtime> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let make = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.get_or_init(make).block_on(work)
    })
}
