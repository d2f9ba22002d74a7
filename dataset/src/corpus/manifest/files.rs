//! Files and the sizes of their row groups, and what they are as a whole.

use blip2_store::error::StoreError;
use blip2_store::{Location, PinnedObject};
use serde::{Deserialize, Serialize};

use super::source::ManifestSource;
use crate::corpus::columns::ColumnNames;
use crate::corpus::parquet_file::ParquetFile;
use crate::error::Result;

/// One Parquet file of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Path or URL.
    pub location: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Entity tag the store gave it, if any.
    pub etag: Option<String>,
    /// Rows of every row group, without those whose download failed.
    pub row_groups: Vec<u32>,
    /// Rows of every row group whose `status` says that their download failed: they are no data, and passed
    /// over. None at all if no row of the file has failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<u32>,
}

/// The files of a corpus, source by source, in the order in which they were named (patterns sorted).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// The files.
    pub files: Vec<ManifestFile>,
    /// The sources they are of, one after the other; none for a corpus of one source.
    pub sources: Vec<ManifestSource>,
}

impl ManifestFile {
    /// Opens the file, which must be the one that was pinned.
    ///
    /// # Errors
    /// [`StoreError::Changed`], [`StoreError::NotFound`], [`StoreError::Failed`],
    /// [`DatasetError::NotParquet`](crate::error::DatasetError::NotParquet).
    pub async fn open(&self, location: Location, columns: &ColumnNames) -> Result<ParquetFile> {
        let object = PinnedObject::look_up(location, self.bytes, self.etag.as_deref()).await?;
        let opened = ParquetFile::open(object, columns).await?.without_failed(&self.failed);
        match opened.row_groups() == self.row_groups {
            true => Ok(opened),
            false => {
                let reason = "its row groups have other sizes".to_owned();
                Err(StoreError::Changed { file: self.location.clone(), reason }.into())
            }
        }
    }
}

impl Manifest {
    /// The manifest of one source.
    pub fn of(files: Vec<ManifestFile>) -> Self {
        Self { files, sources: Vec::new() }
    }

    /// Rows of the corpus.
    pub fn rows(&self) -> u64 {
        self.files.iter().flat_map(|file| &file.row_groups).map(|rows| u64::from(*rows)).sum()
    }

    /// Rows whose download failed, which are not among [`Manifest::rows`].
    pub fn failed_rows(&self) -> u64 {
        self.files.iter().flat_map(|file| &file.failed).map(|rows| u64::from(*rows)).sum()
    }

    /// Length of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// BLAKE3 (hexadecimal) over the files' names, lengths and row counts, and over the sources where there
    /// are several: equal for copies of one corpus wherever they are stored.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"blip2 manifest v1");
        hasher.update(&(self.files.len() as u64).to_le_bytes());
        for file in &self.files {
            let name = file.location.rsplit('/').next().unwrap_or_default();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
            hasher.update(&file.bytes.to_le_bytes());
            hasher.update(&(file.row_groups.len() as u64).to_le_bytes());
            for rows in &file.row_groups {
                hasher.update(&rows.to_le_bytes());
            }
            if !file.failed.is_empty() {
                hasher.update(b"failed").update(&(file.failed.len() as u64).to_le_bytes());
                for rows in &file.failed {
                    hasher.update(&rows.to_le_bytes());
                }
            }
        }
        if self.sources.len() > 1 {
            hasher.update(b"sources").update(&(self.sources.len() as u64).to_le_bytes());
            for ManifestSource { name, weight, files } in &self.sources {
                hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
                // No weight is NaN, which a weight never is.
                hasher.update(&weight.unwrap_or(f64::NAN).to_bits().to_le_bytes());
                hasher.update(&files.to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}
