//! One ingestion: unit after unit, from its source to the record that it is done.

use std::sync::Arc;

use blip2_store::Location;
use blip2_store::record::{create_same, read_json, to_json};
use futures::TryStreamExt;

use super::done::{DamagedSource, DoneRecord, IngestSummary, PartRecord, done_name, write_summary};
use super::job::Job;
use super::part::{PartFile, PartWriter};
use super::prepare::Preparer;
use super::row::{Outcome, RejectReason};
use super::settings::{IngestSettings, Share};
use super::sources::Sources;
use super::yields::Yields;
use crate::error::{DatasetError, Result};
use crate::quarantine::{QuarantineList, QuarantineRecord};

/// Ingests `sources` (paths, URLs, patterns) into `out`; `progress` is told what is done after every unit.
///
/// What an earlier run has done is not done again; the bytes are the same whatever was killed in between.
///
/// # Errors
/// [`DatasetError::Setting`]; of the sources as `StoreError::NotFound`, `StoreError::NoMatch`,
/// [`DatasetError::Malformed`], [`DatasetError::MissingColumn`]; [`DatasetError::NothingKept`] when a source
/// was done of which no row could be used; `StoreError::Changed` when `out` holds another ingestion or a
/// source is not what it was; `StoreError::Failed`.
pub async fn ingest(
    sources: &[String],
    out: &Location,
    settings: IngestSettings,
    share: Share,
    mut progress: impl FnMut(&IngestSummary),
) -> Result<IngestSummary> {
    settings.validate()?;
    if share.count == 0 || share.index >= share.count {
        return Err(DatasetError::Setting("share: I/N with I from 0 to N-1".to_owned()));
    }
    let opened = Sources::open(sources, &settings).await?;
    let job = Job::begin(out, &opened, &settings).await?;
    let preparer = Arc::new(Preparer::new(settings.clone())?);
    let mut summary = IngestSummary::new(job.units.len() as u64);
    let mut yields = Yields::of(&job);
    for number in 0..job.units.len() as u64 {
        let known = read_json::<DoneRecord>(&out.join(&done_name(number)), "done record").await?;
        let (done, first_refusal) = match known {
            Some(done) => (done, None),
            None if number % share.count == share.index => {
                ingest_unit(number, &job, &opened, &preparer, out).await?
            }
            None => continue,
        };
        yields.add(&job.units[number as usize], &done, first_refusal);
        summary.add(&done);
        progress(&summary);
    }
    if summary.units_done == summary.units {
        write_summary(out, &summary).await?;
    }
    yields.check(&summary)?;
    Ok(summary)
}

/// One unit, from its source to its done-record, and why the first row that cannot be used is none.
async fn ingest_unit(
    number: u64,
    job: &Job,
    sources: &Sources,
    preparer: &Arc<Preparer>,
    out: &Location,
) -> Result<(DoneRecord, Option<String>)> {
    let unit = &job.units[number as usize];
    let source = sources.location(unit).to_string();
    let mut parts = PartWriter::new(number, preparer.settings());
    let mut rejected = QuarantineList::default();
    let mut record = DoneRecord::new(number);
    let mut first_refusal = None;
    let in_work = 2 * preparer.settings().threads;
    let rows = sources.rows(unit, preparer.settings()).await?;
    let mut outcomes =
        rows.map_ok(|row| Arc::clone(preparer).prepare(row, sources.folder(unit))).try_buffered(in_work);
    while let Some(outcome) = outcomes.try_next().await? {
        match outcome {
            Outcome::Ready(row) => {
                record.rows_read += 1;
                if let Some(file) = parts.push(row)? {
                    record.parts.push(store_part(out, file).await?);
                }
            }
            Outcome::Rejected { row, key, reason, detail } => {
                record.rows_read += 1;
                first_refusal
                    .get_or_insert_with(|| format!("row {row} ({key}): {}: {detail}", reason.name()));
                *record.rejected.entry(reason.name().to_owned()).or_insert(0) += 1;
                if reason == RejectReason::DamagedSource {
                    record.damaged = Some(DamagedSource { source: source.clone(), reason: detail.clone() });
                }
                rejected.insert(QuarantineRecord {
                    key,
                    file: source.clone(),
                    row_group: u32::try_from(number).unwrap_or(u32::MAX),
                    row: u32::try_from(row - unit.first_row).unwrap_or(u32::MAX),
                    reason: format!("{}: {detail}", reason.name()),
                    sample: row,
                    stage: 0,
                });
            }
        }
    }
    drop(outcomes);
    if let Some(file) = parts.finish()? {
        record.parts.push(store_part(out, file).await?);
    }
    record.rows = record.parts.iter().map(|part| part.rows).sum();
    if !rejected.is_empty() {
        create_same(&out.join(&format!("rejected/{number:06}.parquet")), rejected.to_parquet()?).await?;
    }
    create_same(&out.join(&done_name(number)), to_json(&record)?).await?;
    Ok((record, first_refusal))
}

async fn store_part(out: &Location, file: PartFile) -> Result<PartRecord> {
    let record = PartRecord {
        name: file.name,
        bytes: file.content.len() as u64,
        rows: file.rows,
        blake3: blake3::hash(&file.content).to_hex().to_string(),
    };
    create_same(&out.join(&record.name), file.content).await?;
    Ok(record)
}
