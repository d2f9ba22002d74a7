//! Archives among the files of a corpus: each is ingested once, and its Parquet takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use blip2_store::record::read_json;
use blip2_store::{Location, StorePool, StoredObject};

use super::done::IngestSummary;
use super::execute::ingest;
use super::kind::SourceKind;
use super::row::RejectReason;
use super::settings::{IngestSettings, Share};
use crate::corpus::archive_name::{ARCHIVE_ENDINGS, is_archive, stem_of_archive};
use crate::corpus::columns::ColumnNames;
use crate::corpus::ingest::done::{DoneRecord, done_name};
use crate::corpus::manifest::CorpusSource;
use crate::error::{DatasetError, Result};

/// Endings of what a folder of a corpus stands for.
const CORPUS_ENDINGS: [&str; 12] = {
    let mut endings = ["parquet"; 12];
    let mut place = 0;
    while place < ARCHIVE_ENDINGS.len() {
        endings[place + 1] = ARCHIVE_ENDINGS[place];
        place += 1;
    }
    endings
};
/// Digits of the hash in a folder's name.
const HASH_DIGITS: usize = 16;

/// How archives of a corpus are converted.
#[derive(Debug, Clone)]
pub struct ArchiveConversion {
    /// Folder below which each archive gets one of its own.
    pub folder: Location,
    /// Images of more pixels are left out.
    pub max_pixels: u64,
    /// Decode threads.
    pub threads: usize,
    /// Share of rows that may be left out, besides downloads that failed.
    pub max_rejected_share: f64,
}

/// What was converted, now or before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converted {
    /// Archives.
    pub archives: u64,
    /// Those of them that had been converted before.
    pub known: u64,
    /// Rows read.
    pub rows_read: u64,
    /// Rows written.
    pub rows: u64,
    /// Rows left out, by reason.
    pub rejected: BTreeMap<String, u64>,
}

impl Converted {
    fn add(&mut self, summary: &IngestSummary) {
        self.archives += 1;
        self.rows_read += summary.rows_read;
        self.rows += summary.rows;
        for (reason, count) in &summary.rejected {
            *self.rejected.entry(reason.clone()).or_insert(0) += count;
        }
    }
}

impl fmt::Display for Converted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows of {} in {} archives", self.rows, self.rows_read, self.archives)?;
        for (reason, count) in &self.rejected {
            write!(f, ", {count} {reason}")?;
        }
        Ok(())
    }
}

impl ArchiveConversion {
    /// The sources with the Parquet of each archive in its place. `told` hears what is done of how many
    /// archives, first before the first of them; it hears nothing where no source is an archive.
    ///
    /// An archive is converted again only if its place, length or tag is another. What was stopped goes on.
    ///
    /// # Errors
    /// As [`ingest`]; [`DatasetError::DamagedArchive`] for one that is damaged or has no usable row;
    /// [`DatasetError::Setting`] where more rows are left out than may be.
    pub async fn apply(
        &self,
        sources: &[CorpusSource],
        mut told: impl FnMut(&Converted, u64),
    ) -> Result<(Vec<CorpusSource>, Converted)> {
        let mut pool = StorePool::default();
        let mut opened: Vec<(CorpusSource, Vec<Entry>)> = Vec::new();
        for source in sources {
            let mut entries = Vec::new();
            for pattern in &source.files {
                if pattern.ends_with(".parquet") {
                    entries.push(Entry::Named(pattern.clone()));
                    continue;
                }
                let objects = pool.expand(pattern, &CORPUS_ENDINGS).await?;
                let archives: BTreeSet<String> = objects.iter().filter_map(stem_of).collect();
                match archives.is_empty() {
                    true => entries.push(Entry::Named(pattern.clone())),
                    false => {
                        let beside = |object: &StoredObject| is_metadata(object, &archives);
                        entries.extend(objects.into_iter().filter(|object| !beside(object)).map(Entry::of));
                    }
                }
            }
            opened.push((source.clone(), entries));
        }
        let archives = |entry: &&Entry| matches!(entry, Entry::Archive(_));
        let total = opened.iter().flat_map(|(_, entries)| entries).filter(archives).count() as u64;
        let mut converted = Converted::default();
        if total == 0 {
            return Ok((sources.to_vec(), converted));
        }
        told(&converted, total);
        let mut result = Vec::new();
        for (source, entries) in opened {
            let mut files = Vec::new();
            for entry in entries {
                match entry {
                    Entry::Named(pattern) => files.push(pattern),
                    Entry::Archive(archive) => {
                        files.extend(self.convert(archive, &mut converted).await?);
                        told(&converted, total);
                    }
                }
            }
            result.push(CorpusSource { files, ..source });
        }
        self.check_share(&converted)?;
        Ok((result, converted))
    }

    /// The files of one archive.
    async fn convert(&self, archive: StoredObject, converted: &mut Converted) -> Result<Vec<String>> {
        let settings = IngestSettings {
            max_pixels: self.max_pixels,
            threads: self.threads,
            columns: ColumnNames::default(),
            ..IngestSettings::new(SourceKind::Webdataset)
        };
        let out = self.folder.join(&folder_name(&archive, &settings));
        let place = out.join(&done_name(0));
        let known = read_json::<DoneRecord>(&place, "done record").await?;
        converted.known += u64::from(known.is_some());
        let name = archive.location.to_string();
        let ingested = ingest(std::slice::from_ref(&name), &out, settings, Share::WHOLE, |_| ()).await;
        let summary = match ingested {
            // The start is not to be told of "other sources", of which there are none.
            Err(DatasetError::NothingKept { sources, .. }) => {
                return Err(DatasetError::DamagedArchive {
                    reason: sources,
                    file: name,
                    kept: out.to_string(),
                    rows: 0,
                });
            }
            ingested => ingested?,
        };
        if let Some(damaged) = summary.damaged.first() {
            return Err(DatasetError::DamagedArchive {
                reason: damaged.reason.clone(),
                file: name,
                kept: out.to_string(),
                rows: summary.rows,
            });
        }
        converted.add(&summary);
        let done = read_json::<DoneRecord>(&place, "done record").await?;
        let parts = done.map(|done| done.parts).unwrap_or_default();
        Ok(parts.iter().map(|part| out.join(&part.name).to_string()).collect())
    }

    fn check_share(&self, converted: &Converted) -> Result<()> {
        // A download that failed is a row without data, not one with bad data.
        let failed = converted.rejected.get(RejectReason::NotDownloaded.name()).copied().unwrap_or_default();
        let tried = converted.rows_read.saturating_sub(failed);
        let left_out = tried.saturating_sub(converted.rows);
        if left_out as f64 <= self.max_rejected_share * tried as f64 {
            return Ok(());
        }
        Err(DatasetError::Setting(format!(
            "{converted}: more rows of the archives cannot be used than data.max_quarantined_share = {} allows; each is \
             listed below {}, in the folders `rejected`",
            self.max_rejected_share, self.folder
        )))
    }
}

/// What stands in a list of files.
enum Entry {
    /// Files that are no archives, as they were named or by their place.
    Named(String),
    Archive(StoredObject),
}

impl Entry {
    fn of(object: StoredObject) -> Self {
        match is_archive(object.location.file_name()) {
            true => Self::Archive(object),
            false => Self::Named(object.location.to_string()),
        }
    }
}

/// Place of an archive without its ending.
fn stem_of(object: &StoredObject) -> Option<String> {
    let place = object.location.to_string();
    stem_of_archive(&place).map(str::to_owned)
}

/// Whether a file is the table that img2dataset writes beside an archive, which has the rows without their
/// images.
fn is_metadata(object: &StoredObject, archives: &BTreeSet<String>) -> bool {
    let place = object.location.to_string();
    place.strip_suffix(".parquet").is_some_and(|stem| archives.contains(stem))
}

/// Name of an archive's folder: its own, with a hash of all that decides what is written.
fn folder_name(archive: &StoredObject, settings: &IngestSettings) -> String {
    let settings = serde_json::to_string(settings).unwrap_or_default();
    let all = format!("{}\n{}\n{:?}\n{settings}", archive.location, archive.bytes, archive.etag);
    let hash = blake3::hash(all.as_bytes()).to_hex();
    let name = archive.location.file_name();
    let name = name.split('.').next().unwrap_or_default();
    let plain: String = name
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() || character == '-' { character } else { '_' })
        .take(64)
        .collect();
    format!("{plain}-{}", &hash[..HASH_DIGITS])
}
