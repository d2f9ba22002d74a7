//! Making a manifest of the footers of a corpus.

use std::sync::atomic::{AtomicUsize, Ordering};

use blip2_store::error::StoreError;
use blip2_store::{PinnedObject, StorePool, StoredObject};
use futures::{StreamExt, TryStreamExt};

use super::files::{Manifest, ManifestFile};
use super::source::{self, CorpusSource, ManifestSource, Unweighted};
use crate::corpus::columns::ColumnNames;
use crate::corpus::parquet_file::ParquetFile;
use crate::error::{DatasetError, Result};

/// Footers read at the same time.
const FOOTER_CONCURRENCY: usize = 64;

impl Manifest {
    /// Reads the footers of all files that `sources` (paths, URLs, patterns) name and checks their columns.
    ///
    /// # Errors
    /// [`StoreError::NoMatch`], [`StoreError::NotFound`], [`DatasetError::NotParquet`],
    /// [`DatasetError::MissingColumn`], [`DatasetError::ColumnType`], [`DatasetError::NoRows`],
    /// [`StoreError::Location`], [`StoreError::Changed`] (bad input), [`StoreError::Failed`].
    pub async fn open(sources: &[String], columns: &ColumnNames) -> Result<Self> {
        let whole = CorpusSource { files: sources.to_vec(), ..CorpusSource::default() };
        if sources.is_empty() {
            return Err(StoreError::NoMatch { pattern: "(no source given)".to_owned() }.into());
        }
        Self::open_sources(&[whole], columns, &|_, _| ()).await
    }

    /// Reads the footers of all files of some sources, 64 at a time, and nothing else of them. `opened` is
    /// told how many files of how many have been read.
    ///
    /// # Errors
    /// As [`Manifest::open`]; [`DatasetError::Setting`] for a weight that is not positive or a source without
    /// files.
    pub async fn open_sources(
        sources: &[CorpusSource],
        columns: &ColumnNames,
        opened: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self> {
        if sources.len() > 1 {
            source::check(sources)?;
        }
        let mut pool = StorePool::default();
        let mut objects: Vec<StoredObject> = Vec::new();
        let mut found = Vec::new();
        for source in sources {
            let before = objects.len();
            for pattern in &source.files {
                objects.extend(pool.expand(pattern, &["parquet"]).await?);
            }
            let files = u32::try_from(objects.len() - before);
            let files = files.map_err(|_| DatasetError::Setting("more than 2^32 files".to_owned()))?;
            found.push(ManifestSource { name: source.name.clone(), weight: source.weight, files });
        }
        let total = objects.len();
        let Some(first) = objects.first().map(|object| object.location.to_string()) else {
            return Err(StoreError::NoMatch { pattern: "(no source given)".to_owned() }.into());
        };
        let done = AtomicUsize::new(0);
        // `buffered` keeps the order of the names, whatever the order of arrival.
        let footers = objects.into_iter().map(|object| async {
            let file = read_footer(object, columns).await?;
            opened(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok::<_, DatasetError>(file)
        });
        let files: Vec<_> = futures::stream::iter(footers).buffered(FOOTER_CONCURRENCY).try_collect().await?;
        let mut before = 0;
        for (source, found) in sources.iter().zip(&mut found) {
            let own = before..before + found.files as usize;
            before = own.end;
            let row_groups = files[own].iter().flat_map(|file| &file.row_groups);
            let rows: u64 = row_groups.map(|rows| u64::from(*rows)).sum();
            // One without rows is refused where samples are drawn.
            if source.weight.is_none() && source.unweighted == Unweighted::Root && rows > 0 {
                found.weight = Some((rows as f64).sqrt());
            }
        }
        let manifest = match sources {
            [only] if only.name.is_empty() => Self::of(files),
            _ => Self { files, sources: found },
        };
        let failed = manifest.failed_rows();
        if manifest.rows() == 0 {
            return Err(DatasetError::NoRows { files: manifest.files.len(), first, failed });
        }
        if failed > 0 {
            tracing::info!(failed, rows = manifest.rows(), "rows whose download failed are passed over");
        }
        Ok(manifest)
    }
}

/// Opens one file for the manifest.
async fn read_footer(object: StoredObject, columns: &ColumnNames) -> Result<ManifestFile> {
    let StoredObject { location, bytes, etag } = object;
    let name = location.to_string();
    let file = ParquetFile::open(PinnedObject::found(location, bytes, etag.clone()), columns).await?;
    let failed = file.failed_downloads().await?;
    let row_groups = file.without_failed(&failed).row_groups();
    Ok(ManifestFile { location: name, bytes, etag, row_groups, failed })
}
