//! The set of files that an ingestion wrote, compared with its records.

use std::collections::BTreeMap;

use blip2_store::record::read_json;
use blip2_store::{Location, StoredObject};

use super::finding::{Finding, FindingKind};
use crate::corpus::ingest::{DoneRecord, JOB_FILE, Job, PartRecord, done_name};
use crate::error::Result;

/// The folder's Parquet files, and what is missing, changed or foreign. Unless it is to be quick, every file
/// is hashed.
pub(super) async fn check(folder: &Location, quick: bool) -> Result<(Vec<StoredObject>, Vec<Finding>)> {
    let mut findings = Vec::new();
    let place = folder.join(JOB_FILE).to_string();
    let units = match read_json::<Job>(&folder.join(JOB_FILE), "ingestion record").await {
        Ok(job) => job.map_or(0, |job| job.unit_count()),
        Err(error) if error.is_bad_input() => {
            findings.push(Finding::of_file(FindingKind::ChangedFile, &place, error.to_string()));
            0
        }
        Err(error) => return Err(error.into()),
    };
    let mut parts: BTreeMap<String, PartRecord> = BTreeMap::new();
    let mut missing = 0u64;
    for unit in 0..units {
        let place = folder.join(&done_name(unit));
        match read_json::<DoneRecord>(&place, "done record").await {
            Ok(Some(done)) => parts.extend(done.parts.into_iter().map(|part| (part.name.clone(), part))),
            Ok(None) => missing += 1,
            Err(error) if error.is_bad_input() => {
                let place = place.to_string();
                findings.push(Finding::of_file(FindingKind::ChangedFile, &place, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if missing > 0 {
        let detail = format!("{missing} of {units} units are not done; run the ingestion again");
        findings.push(Finding::of_file(FindingKind::Incomplete, &place, detail));
    }
    let files = folder.list_matching("*.parquet").await?;
    for file in &files {
        let name = file.location.to_string();
        match parts.remove(file.location.file_name()) {
            None => {
                let detail = "no done-record names it";
                findings.push(Finding::of_file(FindingKind::ForeignFile, &name, detail));
            }
            Some(part) => findings.extend(compare(file, &name, &part, quick).await?),
        }
    }
    for name in parts.keys() {
        let place = folder.join(name).to_string();
        findings.push(Finding::of_file(FindingKind::MissingFile, &place, "its done-record names it"));
    }
    Ok((files, findings))
}

async fn compare(file: &StoredObject, name: &str, part: &PartRecord, quick: bool) -> Result<Option<Finding>> {
    let changed = |detail: String| Some(Finding::of_file(FindingKind::ChangedFile, name, detail));
    if file.bytes != part.bytes {
        return Ok(changed(format!("{} bytes instead of {}", file.bytes, part.bytes)));
    }
    if quick {
        return Ok(None);
    }
    let content = file.location.read().await?.unwrap_or_default();
    match blake3::hash(&content).to_hex().as_str() == part.blake3 {
        true => Ok(None),
        false => Ok(changed("its BLAKE3 is not the recorded one".to_owned())),
    }
}
