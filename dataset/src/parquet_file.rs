//! One Parquet file in a store: its footer, and its row groups by ranged reads.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader};
use parquet::arrow::async_reader::MetadataFetch;
use parquet::arrow::push_decoder::ParquetPushDecoderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

use crate::columns::{ColumnNames, FileColumns, RowGroup};
use crate::error::{DatasetError, Result};
use crate::reads::{ReadFor, Reads};
use crate::row_group_hash::RecordedRowGroup;
use crate::store::PinnedObject;

/// Bytes read from the end of a file at first: holds most footers, so that opening a file is one request.
const FOOTER_GUESS: usize = 64 * 1024;

/// Reads of a row group until its bytes have the recorded hash.
const HASH_TRIES: u32 = 3;

/// An open file.
#[derive(Debug)]
pub(crate) struct ParquetFile {
    object: PinnedObject,
    footer: ArrowReaderMetadata,
    columns: FileColumns,
    /// One for each row group, or none at all.
    recorded: Vec<RecordedRowGroup>,
}

/// A row group whose bytes have been read and not yet decoded.
pub(crate) struct EncodedRowGroup {
    /// `None` if the file has no such row group.
    reader: Option<ParquetRecordBatchReader>,
    columns: FileColumns,
    file: String,
    row_group: u32,
    rows: u32,
}

impl ParquetFile {
    /// Reads the footer and finds the columns.
    ///
    /// # Errors
    /// [`DatasetError::NotParquet`], [`DatasetError::MissingColumn`], [`DatasetError::ColumnType`],
    /// [`DatasetError::Changed`], [`DatasetError::Store`].
    pub(crate) async fn open(object: PinnedObject, names: &ColumnNames) -> Result<Self> {
        let file = object.location().to_string();
        let not_parquet = |reason: String| DatasetError::NotParquet { file: file.clone(), reason };
        let footer = async {
            let metadata = ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Skip)
                .with_prefetch_hint(Some(FOOTER_GUESS))
                .load_and_finish(FooterReader(&object), object.bytes())
                .await?;
            ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
        };
        let footer = AssertUnwindSafe(footer).catch_unwind().await.unwrap_or_else(|_| Err(decoder_failed()));
        let footer = footer.map_err(|error| match store_error(&error) {
            Some(cause) => object.failed(cause),
            None => not_parquet(error.to_string()),
        })?;
        let columns = FileColumns::find(footer.schema(), names, &file)?;
        let recorded = RecordedRowGroup::of(footer.metadata(), object.bytes()).map_err(not_parquet)?;
        Ok(Self { object, footer, columns, recorded })
    }

    /// Rows of every row group.
    pub(crate) fn row_groups(&self) -> Vec<u32> {
        let rows = |group: &parquet::file::metadata::RowGroupMetaData| {
            // A negative or larger count is a damaged footer; the row group then fails to decode.
            u32::try_from(group.num_rows()).unwrap_or(u32::MAX)
        };
        self.footer.metadata().row_groups().iter().map(rows).collect()
    }

    /// Reads the needed columns of a row group, in concurrent ranged reads.
    ///
    /// # Errors
    /// [`DatasetError::ReadRowGroup`] from the store, [`DatasetError::Changed`], [`DatasetError::DamagedRowGroup`] from
    /// the decoder.
    pub(crate) async fn fetch(&self, row_group: u32) -> Result<EncodedRowGroup> {
        self.fetch_by(row_group, None).await
    }

    /// [`ParquetFile::fetch`] through the loader's reads.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn fetch_through(&self, reads: &Reads, wanted: ReadFor) -> Result<EncodedRowGroup> {
        self.fetch_by(wanted.row_group.row_group, Some((reads, wanted))).await
    }

    async fn fetch_by(&self, row_group: u32, through: Option<(&Reads, ReadFor)>) -> Result<EncodedRowGroup> {
        let file = self.object.location().to_string();
        let damaged = |error: ParquetError| damaged(&file, row_group, &error);
        let rows = self.row_groups().get(row_group as usize).copied().unwrap_or_default();
        let schema = self.footer.metadata().file_metadata().schema_descr();
        let build = || {
            ParquetPushDecoderBuilder::new_with_metadata(self.footer.clone())
                .with_row_groups(vec![row_group as usize])
                .with_projection(ProjectionMask::roots(schema, self.columns.projection()))
                .with_batch_size(rows.max(1) as usize)
                .build()
        };
        let mut decoder = guarded(build).map_err(damaged)?;
        let reader = loop {
            match guarded(|| decoder.try_next_reader()).map_err(damaged)? {
                DecodeResult::Data(reader) => break Some(reader),
                DecodeResult::Finished => break None,
                DecodeResult::NeedsData(ranges) => {
                    let read = self.read(row_group, &ranges, through).await?;
                    guarded(|| decoder.push_ranges(ranges, read)).map_err(damaged)?;
                }
            }
        };
        Ok(EncodedRowGroup { reader, columns: self.columns.clone(), file, row_group, rows })
    }
}

impl ParquetFile {
    /// Ranges of a row group. Where its hash is recorded, all of it is read and compared, again if need be: what
    /// changed on the way is right the next time.
    async fn read(
        &self,
        row_group: u32,
        ranges: &[Range<u64>],
        through: Option<(&Reads, ReadFor)>,
    ) -> Result<Vec<Bytes>> {
        let file = self.object.location().to_string();
        let failed = |error: object_store::Error| {
            let reason = error.to_string();
            let read = DatasetError::ReadRowGroup { file: file.clone(), row_group, reason };
            self.object.changed(&error).unwrap_or(read)
        };
        let Some(record) = self.recorded.get(row_group as usize) else {
            return self.read_by(ranges, through).await.map_err(failed);
        };
        let damaged = |reason: &str| {
            let (file, reason) = (file.clone(), reason.to_owned());
            DatasetError::DamagedRowGroup { file, row_group, reason }
        };
        for again in (0..HASH_TRIES).rev() {
            let whole = [record.range()];
            let content = self.read_by(&whole, through).await.map_err(failed)?.pop().unwrap_or_default();
            let (hashed, expected) = (content.clone(), record.clone());
            // Computation, not for a tokio thread.
            let right = tokio::task::spawn_blocking(move || expected.is_of(&hashed)).await.unwrap_or(false);
            if right {
                let slices = ranges.iter().map(|range| record.slice(&content, range));
                let slices: Option<Vec<_>> = slices.collect();
                return slices.ok_or_else(|| damaged("its columns are outside of its recorded bytes"));
            }
            if let Some((reads, _)) = through {
                reads.forget(&self.object, &whole);
            }
            tracing::warn!(file, row_group, again, "read bytes that do not have the recorded BLAKE3");
        }
        Err(damaged("its bytes do not have the recorded BLAKE3"))
    }

    async fn read_by(
        &self,
        ranges: &[Range<u64>],
        through: Option<(&Reads, ReadFor)>,
    ) -> Result<Vec<Bytes>, object_store::Error> {
        match through {
            Some((reads, wanted)) => reads.ranges(&self.object, ranges, wanted).await,
            None => self.object.read_ranges(ranges).await,
        }
    }
}

impl EncodedRowGroup {
    /// Decompresses and decodes: computation, not for a tokio thread.
    ///
    /// # Errors
    /// [`DatasetError::DamagedRowGroup`].
    pub(crate) fn decode(self) -> Result<RowGroup> {
        let batch = self.reader.and_then(|mut reader| {
            guarded(|| reader.next().transpose().map_err(ParquetError::from)).transpose()
        });
        let reason = match batch {
            Some(Ok(batch)) if batch.num_rows() == self.rows as usize => {
                return Ok(RowGroup::new(&batch, &self.columns));
            }
            Some(Ok(batch)) => format!("it holds {} of {} rows", batch.num_rows(), self.rows),
            Some(Err(error)) => error.to_string(),
            None => "it holds no rows".to_owned(),
        };
        Err(DatasetError::DamagedRowGroup { file: self.file, row_group: self.row_group, reason })
    }
}

/// Parquet's decoder panics on some damaged files: a damaged file all the same, not the end of the run.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(decoder_failed()))
}

fn decoder_failed() -> ParquetError {
    ParquetError::General("its decoder failed on damaged data".into())
}

fn damaged(file: &str, row_group: u32, error: &ParquetError) -> DatasetError {
    DatasetError::DamagedRowGroup { file: file.to_owned(), row_group, reason: error.to_string() }
}

/// The store's error inside a Parquet error, if that is what it is.
fn store_error(error: &ParquetError) -> Option<&object_store::Error> {
    match error {
        ParquetError::External(cause) => cause.downcast_ref(),
        _ => None,
    }
}

/// Ranged reads for the footer reader.
struct FooterReader<'a>(&'a PinnedObject);

impl MetadataFetch for FooterReader<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        let read = self.0.read(range);
        async move { read.await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }
}
