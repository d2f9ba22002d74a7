//! The manifest: the files of a corpus and the sizes of their row groups, pinned at the start of a run.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListBuilder, RecordBatch, StringArray, UInt32Builder, UInt64Array,
};
use arrow::datatypes::{UInt32Type, UInt64Type};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::columns::ColumnNames;
use crate::error::{DatasetError, Result};
use crate::parquet_file::{ParquetFile, guarded};
use crate::store::{Location, StorePool};

/// Footers read at the same time.
const FOOTER_CONCURRENCY: usize = 32;

/// One Parquet file of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Path or URL.
    pub location: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Entity tag the store gave it, if any.
    pub etag: Option<String>,
    /// Rows of every row group.
    pub row_groups: Vec<u32>,
}

/// The files of a corpus, in the order in which they were named (patterns sorted).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The files.
    pub files: Vec<ManifestFile>,
}

impl Manifest {
    /// Reads the footers of all files that `sources` (paths, URLs, patterns) name and checks their columns.
    ///
    /// # Errors
    /// [`DatasetError::NoMatch`], [`DatasetError::NotFound`], [`DatasetError::NotParquet`],
    /// [`DatasetError::MissingColumn`], [`DatasetError::ColumnType`], [`DatasetError::NoRows`],
    /// [`DatasetError::Location`] (bad input), [`DatasetError::Store`].
    pub async fn open(sources: &[String], columns: &ColumnNames) -> Result<Self> {
        let mut pool = StorePool::default();
        let mut locations: Vec<Location> = Vec::new();
        for source in sources {
            locations.extend(pool.expand(source).await?);
        }
        let Some(first) = locations.first().map(Location::to_string) else {
            return Err(DatasetError::NoMatch { pattern: "(no source given)".to_owned() });
        };
        // `buffered` keeps the order of the names, whatever the order of arrival.
        let footers = locations.into_iter().map(|location| read_footer(location, columns.clone()));
        let files: Vec<_> = futures::stream::iter(footers).buffered(FOOTER_CONCURRENCY).try_collect().await?;
        let manifest = Self { files };
        if manifest.rows() == 0 {
            return Err(DatasetError::NoRows { files: manifest.files.len(), first });
        }
        Ok(manifest)
    }

    /// Rows of the corpus.
    pub fn rows(&self) -> u64 {
        self.files.iter().flat_map(|file| &file.row_groups).map(|rows| u64::from(*rows)).sum()
    }

    /// BLAKE3 (hexadecimal) over the files' names, lengths and row counts: equal for copies of one corpus wherever
    /// they are stored.
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
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The manifest as a Parquet file: one row a file.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the writer fails.
    pub fn to_parquet(&self) -> Result<Bytes> {
        let mut row_groups = ListBuilder::new(UInt32Builder::new());
        for file in &self.files {
            row_groups.append_value(file.row_groups.iter().map(|rows| Some(*rows)));
        }
        let text = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("location", text(self.files.iter().map(|file| Some(file.location.as_str())).collect())),
            (
                "bytes",
                Arc::new(UInt64Array::from_iter_values(self.files.iter().map(|file| file.bytes))) as ArrayRef,
            ),
            ("etag", text(self.files.iter().map(|file| file.etag.as_deref()).collect())),
            ("row_groups", Arc::new(row_groups.finish()) as ArrayRef),
        ]);
        batch.map_err(malformed).and_then(|batch| write_parquet(&batch).map_err(malformed))
    }

    /// Reads what [`Manifest::to_parquet`] wrote.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`].
    pub fn from_parquet(content: Bytes) -> Result<Self> {
        let mut files = Vec::new();
        for batch in read_parquet(content).map_err(malformed)? {
            files.extend(files_of(&batch).ok_or_else(|| malformed("unexpected columns"))?);
        }
        Ok(Self { files })
    }
}

/// Opens one file for the manifest.
async fn read_footer(location: Location, columns: ColumnNames) -> Result<ManifestFile> {
    let found = location.head().await?;
    let (bytes, etag) = found.ok_or_else(|| DatasetError::NotFound { location: location.to_string() })?;
    let name = location.to_string();
    let file = ParquetFile::open(location, bytes, &columns).await?;
    Ok(ManifestFile { location: name, bytes, etag, row_groups: file.row_groups() })
}

/// The files of one batch of the manifest's Parquet form; `None` if its columns are not the manifest's.
fn files_of(batch: &RecordBatch) -> Option<Vec<ManifestFile>> {
    let locations = batch.column_by_name("location")?.as_string_opt::<i32>()?;
    let bytes = batch.column_by_name("bytes")?.as_primitive_opt::<UInt64Type>()?;
    let etags = batch.column_by_name("etag")?.as_string_opt::<i32>()?;
    let row_groups = batch.column_by_name("row_groups")?.as_list_opt::<i32>()?;
    let file = |row: usize| {
        let groups = row_groups.value(row);
        Some(ManifestFile {
            location: locations.value(row).to_owned(),
            bytes: bytes.value(row),
            etag: etags.is_valid(row).then(|| etags.value(row).to_owned()),
            row_groups: groups.as_primitive_opt::<UInt32Type>()?.values().to_vec(),
        })
    };
    (0..batch.num_rows()).map(file).collect()
}

fn malformed(reason: impl std::fmt::Display) -> DatasetError {
    DatasetError::Malformed { what: "manifest", reason: reason.to_string() }
}

/// One batch as a Parquet file.
pub(crate) fn write_parquet(batch: &RecordBatch) -> parquet::errors::Result<Bytes> {
    let mut content = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut content, batch.schema(), None)?;
    writer.write(batch)?;
    writer.close()?;
    Ok(content.into())
}

/// All batches of a Parquet file held in memory.
pub(crate) fn read_parquet(content: Bytes) -> parquet::errors::Result<Vec<RecordBatch>> {
    guarded(|| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(content)?.build()?;
        Ok(reader.collect::<Result<_, _>>()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_corpus::{Corpus, emoji_sources};

    async fn open(sources: &[&str]) -> Result<Manifest> {
        let sources: Vec<_> = sources.iter().map(|source| (*source).to_owned()).collect();
        Manifest::open(&sources, &ColumnNames::default()).await
    }

    #[tokio::test]
    async fn the_emoji_corpus_opens() {
        let manifest =
            Manifest::open(&emoji_sources("train-*.parquet"), &ColumnNames::default()).await.unwrap();
        assert_eq!(manifest.files.len(), 4);
        assert_eq!(manifest.rows(), 5085);
        assert!(manifest.files[0].location.ends_with("train-00000.parquet"));
        assert!(manifest.files[0].row_groups.iter().all(|rows| *rows <= 256));
    }

    #[tokio::test]
    async fn parquet_form_round_trips() {
        let mut manifest =
            Manifest::open(&emoji_sources("*-00000.parquet"), &ColumnNames::default()).await.unwrap();
        manifest.files[0].etag = None;
        manifest.files[1].etag = Some("\"tag\"".into());
        let content = manifest.to_parquet().unwrap();
        assert_eq!(content, manifest.to_parquet().unwrap());
        assert_eq!(Manifest::from_parquet(content).unwrap(), manifest);
        let error = Manifest::from_parquet(Bytes::from_static(b"nonsense")).unwrap_err();
        assert!(matches!(error, DatasetError::Malformed { what: "manifest", .. }));
    }

    /// Some of these make Parquet's decoder panic.
    #[tokio::test]
    async fn a_changed_byte_anywhere_is_an_error_or_another_manifest() {
        let manifest =
            Manifest::open(&emoji_sources("*-00000.parquet"), &ColumnNames::default()).await.unwrap();
        let content = manifest.to_parquet().unwrap();
        let mut refused = 0;
        for place in 0..content.len() {
            let mut damaged = content.to_vec();
            damaged[place] ^= 0x41;
            refused += usize::from(Manifest::from_parquet(damaged.into()).is_err());
        }
        assert!(refused > content.len() / 20, "{refused}");
    }

    #[test]
    fn digest_sees_names_sizes_and_rows_but_not_folders() {
        let file = |location: &str, bytes, row_groups: &[u32]| ManifestFile {
            location: location.into(),
            bytes,
            etag: None,
            row_groups: row_groups.to_vec(),
        };
        let digest = |file: ManifestFile| Manifest { files: vec![file] }.digest();
        let base = digest(file("/a/x.parquet", 10, &[1, 2]));
        let tagged = ManifestFile { etag: Some("t".into()), ..file("s3://b/x.parquet", 10, &[1, 2]) };
        assert_eq!(base, digest(tagged));
        for other in [
            file("/a/y.parquet", 10, &[1, 2]),
            file("/a/x.parquet", 11, &[1, 2]),
            file("/a/x.parquet", 10, &[2, 1]),
        ] {
            assert_ne!(base, digest(other));
        }
    }

    #[tokio::test]
    async fn bad_sources_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("zero.parquet"), b"").unwrap();
        std::fs::write(path("text.parquet"), b"this is not a Parquet file at all").unwrap();
        Corpus::default().write(&path("empty.parquet"));
        Corpus::with_rows(3).captions_named("alt").write(&path("alt.parquet"));

        assert!(matches!(open(&[]).await, Err(DatasetError::NoMatch { .. })));
        assert!(matches!(open(&[&path("none.parquet")]).await, Err(DatasetError::NotFound { .. })));
        assert!(matches!(open(&[&path("*.csv")]).await, Err(DatasetError::NoMatch { .. })));
        assert!(matches!(open(&[&path("zero.parquet")]).await, Err(DatasetError::NotParquet { .. })));
        assert!(matches!(open(&[&path("text.parquet")]).await, Err(DatasetError::NotParquet { .. })));
        assert!(matches!(open(&[&path("empty.parquet")]).await, Err(DatasetError::NoRows { files: 1, .. })));
        let error = open(&[&path("alt.parquet")]).await.unwrap_err();
        assert!(matches!(error, DatasetError::MissingColumn { .. }), "{error}");
        assert!(error.to_string().contains("alt.parquet") && error.is_bad_input(), "{error}");
    }
}
