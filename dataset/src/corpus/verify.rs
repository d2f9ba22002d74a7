//! Everything that can be checked of a corpus before it is trained on, as findings with stable names.

mod finding;
mod job;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use blip2_store::error::StoreError;
use blip2_store::{Location, PinnedObject, StorePool, StoredObject};
use serde::Serialize;

use crate::corpus::columns::ColumnNames;
use crate::corpus::ingest::JOB_FILE;
use crate::corpus::parquet_file::ParquetFile;
use crate::corpus::row_group_file::{IngestedRowGroup, recorded_row_groups};
use crate::error::{DatasetError, Result};
pub use finding::{Finding, FindingKind};
use rows::{RowChecks, Totals};

/// What to check and how.
#[derive(Debug, Clone)]
pub struct VerifySpec {
    /// Files, patterns, or folders that ingestion wrote.
    pub sources: Vec<String>,
    /// Names of the columns.
    pub columns: ColumnNames,
    /// Images of more pixels are a finding.
    pub max_pixels: u64,
    /// Footers, lengths and records alone: no row is read.
    pub quick: bool,
    /// Decode threads.
    pub threads: usize,
}

/// How much was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct VerifySummary {
    /// Files.
    pub files: u64,
    /// Row groups, of the footers that could be read.
    pub row_groups: u64,
    /// Rows that were read; 0 when no row is read.
    pub rows: u64,
    /// Of these, rows whose download failed: they are no findings.
    pub not_downloaded: u64,
    /// Findings.
    pub findings: u64,
}

/// Checks a corpus; every finding is handed to `found`.
///
/// # Errors
/// [`StoreError::NoMatch`], [`StoreError::NotFound`], [`StoreError::Location`],
/// [`StoreError::Failed`]: whatever is wrong with the corpus itself is a finding.
pub async fn verify_corpus(spec: &VerifySpec, mut found: impl FnMut(&Finding)) -> Result<VerifySummary> {
    let checks = Arc::new(RowChecks::new(spec.max_pixels, spec.threads)?);
    let mut summary = VerifySummary::default();
    let mut report = |findings: Vec<Finding>, summary: &mut VerifySummary| {
        summary.findings += findings.len() as u64;
        findings.iter().for_each(&mut found);
    };
    for source in &spec.sources {
        let (files, findings) = files_of(source, spec.quick).await?;
        report(findings, &mut summary);
        for object in files {
            summary.files += 1;
            let name = object.location.to_string();
            let opened = PinnedObject::found(object.location, object.bytes, object.etag);
            let file = match ParquetFile::open(opened, &spec.columns).await {
                Ok(file) => file,
                Err(error) => {
                    report(vec![finding_of(&name, error)?], &mut summary);
                    continue;
                }
            };
            let (records, finding) = records_of(&name, &file);
            report(finding.into_iter().collect(), &mut summary);
            for (row_group, rows) in (0u32..).zip(file.row_groups()) {
                summary.row_groups += 1;
                if spec.quick || rows == 0 {
                    continue;
                }
                let record = records.get(row_group as usize);
                let (findings, not_downloaded) =
                    check_row_group(&file, &name, row_group, record, &checks).await?;
                summary.rows += u64::from(rows);
                summary.not_downloaded += not_downloaded;
                report(findings, &mut summary);
            }
        }
    }
    Ok(summary)
}

/// The files that a source names; of an ingestion's folder also what is wrong with its set of files.
async fn files_of(source: &str, quick: bool) -> Result<(Vec<StoredObject>, Vec<Finding>)> {
    let folder = Location::parse(source.trim_end_matches('/'))?;
    // Within a file nothing can be looked for.
    if folder.head().await?.is_none() && folder.join(JOB_FILE).head().await?.is_some() {
        return job::check(&folder, quick).await;
    }
    Ok((StorePool::default().expand(source, &["parquet"]).await?, Vec::new()))
}

/// The records in the footer, and what is wrong with them.
fn records_of(name: &str, file: &ParquetFile) -> (Vec<IngestedRowGroup>, Option<Finding>) {
    match recorded_row_groups(file.metadata().file_metadata()) {
        None => (Vec::new(), None),
        Some(Err(reason)) => (Vec::new(), Some(Finding::of_file(FindingKind::WrongStatistics, name, reason))),
        Some(Ok(records)) => {
            let counts = file.row_groups();
            let agree = records.len() == counts.len()
                && records.iter().zip(&counts).all(|(record, rows)| record.rows == u64::from(*rows));
            let finding = (!agree).then(|| {
                let detail = "the recorded rows are not those of the footer's row groups";
                Finding::of_file(FindingKind::WrongStatistics, name, detail)
            });
            (records, finding)
        }
    }
}

async fn check_row_group(
    file: &ParquetFile,
    name: &str,
    row_group: u32,
    record: Option<&IngestedRowGroup>,
    checks: &Arc<RowChecks>,
) -> Result<(Vec<Finding>, u64)> {
    let in_group = |finding: Finding| Finding { row_group: Some(row_group), ..finding };
    let encoded = match file.fetch(row_group).await {
        Ok(encoded) => encoded,
        Err(error) => return Ok((vec![in_group(finding_of(name, error)?)], 0)),
    };
    let (checks, owned) = (Arc::clone(checks), name.to_owned());
    let checked = tokio::task::spawn_blocking(move || {
        encoded.decode().map(|group| checks.check(&group, &owned, row_group))
    });
    let checked = checked.await.map_err(|error| DatasetError::Thread { reason: error.to_string() })?;
    match checked {
        Err(error) => Ok((vec![in_group(finding_of(name, error)?)], 0)),
        Ok((mut findings, totals)) => {
            if let Some(difference) = record.and_then(|record| totals.difference(record)) {
                let finding = Finding::of_file(FindingKind::WrongStatistics, name, difference);
                findings.push(in_group(finding));
            }
            Ok((findings, totals.not_downloaded))
        }
    }
}

impl Totals {
    /// How the rows differ from what the footer records of them.
    fn difference(&self, record: &IngestedRowGroup) -> Option<String> {
        let (captions, image_bytes) = (record.captions, record.image_bytes);
        let recorded = Totals { captions, image_bytes, ..*self };
        (*self != recorded).then(|| format!("recorded are {recorded:?}, its rows have {self:?}"))
    }
}

/// An error about the corpus as a finding; of the store it stays an error.
fn finding_of(file: &str, error: DatasetError) -> Result<Finding> {
    let kind = match &error {
        DatasetError::NotParquet { .. } => FindingKind::NotParquet,
        DatasetError::MissingColumn { .. } => FindingKind::MissingColumn,
        DatasetError::RepeatedColumn { .. } => FindingKind::RepeatedColumn,
        DatasetError::ColumnType { .. } => FindingKind::ColumnType,
        DatasetError::DamagedRowGroup { .. } => FindingKind::DamagedRowGroup,
        DatasetError::Store(StoreError::Changed { .. }) => FindingKind::ChangedFile,
        _ => return Err(error),
    };
    Ok(Finding::of_file(kind, file, error.to_string()))
}
