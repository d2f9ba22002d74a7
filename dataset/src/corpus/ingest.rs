//! From the data sets that the field publishes to the layout that training reads.
//!
//! A job is cut into *units*: an archive, or so many rows of a list. A unit is read in order, its pictures are decoded and
//! checked on one pool of threads, and what can be used is written to files of its own. So the bytes of every file depend
//! on the sources and the settings alone, a job that was killed is run again and skips what is done, and several machines
//! may each take a [`Share`] of the units.
//!
//! ```text
//! OUT/ingest.json                  what is ingested and how: written first, compared by every later run
//! OUT/part-000003-0001.parquet     file 1 of unit 3
//! OUT/rejected/000003.parquet      its rows that cannot be used, with the reason
//! OUT/done/000003.json             written last: the unit's files with lengths and BLAKE3, its counts
//! OUT/summary.json                 written when all units are done
//! ```

mod archives;
mod done;
mod fetch;
mod folder;
mod job;
mod json;
mod layout;
mod part;
mod prepare;
mod row;
mod sources;
#[cfg(test)]
mod tests;
mod yields;

use std::sync::Arc;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

pub use archives::{ArchiveConversion, Converted};
pub use done::PartRecord;
pub use done::{DamagedSource, IngestSummary};
pub(crate) use done::{DoneRecord, done_name};
pub(crate) use job::{JOB_FILE, Job};
pub use prepare::{MAX_CAPTION_BYTES, readable};
pub use row::RejectReason;
pub use sources::SourceKind;

use crate::corpus::columns::ColumnNames;
use crate::error::{DatasetError, Result};
use crate::quarantine::{QuarantineList, QuarantineRecord};
use crate::store::Location;
use crate::store::record::{create_same, read_json, to_json};
use done::write_summary;
use part::PartWriter;
use prepare::Preparer;
use row::Outcome;
use sources::{PicturePlace, Sources};
use yields::Yields;

/// What to ingest and how. All but `threads` and `columns` decides the bytes that are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngestSettings {
    /// What the sources are.
    pub kind: SourceKind,
    /// Folder or prefix of the pictures, for the kinds whose sources only name them.
    pub images: Option<String>,
    /// How a picture is named below `images`; `None` is the kind's own. See [`SourceKind::default_image_name`].
    pub image_name: Option<String>,
    /// Splits that are used, of lists that have some.
    pub splits: Vec<String>,
    /// Names of the columns of Parquet sources.
    pub columns: ColumnNames,
    /// Pictures whose shorter side is longer are made smaller and encoded as JPEG.
    pub short_side: Option<u32>,
    /// Encode every picture as JPEG of this quality, 1 to 100.
    pub jpeg_quality: Option<u8>,
    /// Pictures whose shorter side is shorter are not used.
    pub min_side: u32,
    /// Pictures of more pixels are not used.
    pub max_pixels: u64,
    /// Pictures of more bytes are not used.
    pub max_picture_bytes: u64,
    /// Captions of a row that are kept, the first ones.
    pub max_captions: usize,
    /// Length of a file, bytes of pictures and text.
    pub file_bytes: u64,
    /// Row groups of a file.
    pub row_groups: u32,
    /// Rows of a unit, for sources that are lists.
    pub unit_rows: u64,
    /// Decode threads.
    #[serde(skip, default = "one_thread")]
    pub threads: usize,
}

fn one_thread() -> usize {
    1
}

impl IngestSettings {
    /// The defaults for a kind: files of 64 MiB in 8 row groups, pictures as they are.
    pub fn new(kind: SourceKind) -> Self {
        Self {
            kind,
            images: None,
            image_name: None,
            splits: ["train", "restval"].map(str::to_owned).into(),
            columns: ColumnNames::default(),
            short_side: None,
            jpeg_quality: None,
            min_side: 1,
            max_pixels: 200_000_000,
            max_picture_bytes: 32 << 20,
            max_captions: kind.default_max_captions(),
            file_bytes: 64 << 20,
            row_groups: 8,
            unit_rows: 10_000,
            threads: 1,
        }
    }

    fn validate(&self) -> Result<()> {
        let bad = |text: &str| Err(DatasetError::Setting(text.to_owned()));
        if self.row_groups == 0 || self.row_groups > 4096 {
            return bad("row groups of a file: between 1 and 4096");
        }
        // A column of a row group is addressed by 32-bit offsets.
        if !(1 << 10..=8 << 30).contains(&self.file_bytes)
            || self.file_bytes / u64::from(self.row_groups) > 1 << 30
        {
            return bad("length of a file: between 1 KiB and 8 GiB, and at most 1 GiB a row group");
        }
        if self.unit_rows == 0 || self.max_captions == 0 || self.threads == 0 {
            return bad("rows of a unit, captions of a row and threads: at least 1");
        }
        if self.jpeg_quality.is_some_and(|quality| !(1..=100).contains(&quality)) {
            return bad("JPEG quality: between 1 and 100");
        }
        if self.short_side == Some(0) {
            return bad("short side: at least 1 pixel");
        }
        if self.max_picture_bytes == 0 || self.max_picture_bytes > 1 << 30 {
            return bad("bytes of a picture: between 1 and 1 GiB");
        }
        match (self.kind.picture_place(), &self.images) {
            (PicturePlace::Named, None) => Err(DatasetError::Setting(format!(
                "sources of kind {} only name their pictures; say where these lie (--images FOLDER)",
                self.kind
            ))),
            (PicturePlace::Inside, Some(_)) => Err(DatasetError::Setting(format!(
                "sources of kind {} hold their pictures; --images is for the other kinds",
                self.kind
            ))),
            _ => Ok(()),
        }
    }
}

/// The units of one of several machines: those whose number is `index` modulo `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: u64,
    /// Machines.
    pub count: u64,
}

impl Share {
    /// All units.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// Ingests `sources` (paths, URLs, patterns) into `out`; `progress` is told what is done after every unit.
///
/// What an earlier run has done is not done again; the bytes are the same whatever was killed in between.
///
/// # Errors
/// [`DatasetError::Setting`]; of the sources as [`DatasetError::NotFound`], [`DatasetError::NoMatch`],
/// [`DatasetError::Malformed`], [`DatasetError::MissingColumn`]; [`DatasetError::NothingKept`] when a source was done of
/// which no row could be used; [`DatasetError::Changed`] when `out` holds another
/// ingestion or a source is not what it was; [`DatasetError::Store`].
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

async fn store_part(out: &Location, file: part::PartFile) -> Result<PartRecord> {
    let record = PartRecord {
        name: file.name,
        bytes: file.content.len() as u64,
        rows: file.rows,
        blake3: blake3::hash(&file.content).to_hex().to_string(),
    };
    create_same(&out.join(&record.name), file.content).await?;
    Ok(record)
}
