//! One Parquet file in a store: its footer, and its row groups by ranged reads.

mod encoded;
mod footer;
mod range_reads;

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use blip2_store::PinnedObject;
use bytes::Bytes;
use futures::FutureExt;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader};
use parquet::arrow::push_decoder::ParquetPushDecoderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};

use crate::corpus::archive_name::is_archive;
use crate::corpus::columns::{ColumnNames, FileColumns, failed_status, plain};
use crate::corpus::row_group_hash::RecordedRowGroup;
use crate::error::{DatasetError, Result};
use crate::parquet_bytes::{decoder_failed, guarded};
pub use encoded::EncodedRowGroup;
use encoded::damaged;
use footer::{FooterReader, check_codecs, check_row_counts, says_success, store_error};
pub(crate) use range_reads::RangeReads;
use range_reads::StoreReads;

/// Bytes read from the end of a file at first: holds most footers, so that opening a file is one request.
const FOOTER_GUESS: usize = 64 * 1024;

/// Reads of a row group until its bytes have the recorded hash.
const HASH_TRIES: u32 = 3;

/// Statuses decoded at a time.
const FAILED_BATCH: usize = 1 << 16;

/// Bytes of a row group's columns that are decoded at once, at most: what 32-bit offsets can address.
const MAX_DECODED: i64 = 2 << 30;

/// An open file.
#[derive(Debug)]
pub struct ParquetFile {
    object: PinnedObject,
    footer: ArrowReaderMetadata,
    columns: FileColumns,
    /// One for each row group, or none at all.
    recorded: Vec<RecordedRowGroup>,
    /// Rows of every row group whose download failed and which are passed over; none at all where all are to
    /// be seen.
    failed: Vec<u32>,
}

impl ParquetFile {
    /// Reads the footer and finds the columns.
    ///
    /// # Errors
    /// [`DatasetError::NotParquet`], [`DatasetError::MissingColumn`], [`DatasetError::RepeatedColumn`],
    /// [`DatasetError::ColumnType`], `StoreError::Changed`, `StoreError::Failed`.
    pub(crate) async fn open(object: PinnedObject, names: &ColumnNames) -> Result<Self> {
        let file = object.location().to_string();
        if is_archive(object.location().file_name()) {
            return Err(DatasetError::Archive { file });
        }
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
            Some(cause) => object.failed(cause).into(),
            None => not_parquet(error.to_string()),
        })?;
        check_row_counts(footer.metadata()).map_err(not_parquet)?;
        let columns = FileColumns::find(footer.schema(), names, &file)?;
        check_codecs(footer.metadata(), &columns.projection()).map_err(not_parquet)?;
        let recorded = RecordedRowGroup::of(footer.metadata(), object.bytes()).map_err(not_parquet)?;
        let columns = if recorded.is_empty() { columns } else { columns.with_stored_hash() };
        Ok(Self { object, footer, columns, recorded, failed: Vec::new() })
    }

    /// With so many rows of every row group passed over, since their download failed; none at all: every row
    /// is seen.
    pub(crate) fn without_failed(self, failed: &[u32]) -> Self {
        Self { failed: failed.to_vec(), ..self }
    }

    /// How many rows of every row group have a status other than success; none at all if no row has. Row
    /// groups whose statistics say that all succeeded are not read.
    ///
    /// # Errors
    /// As [`ParquetFile::fetch`].
    pub(crate) async fn failed_downloads(&self) -> Result<Vec<u32>> {
        let Some(status) = self.columns.status() else { return Ok(Vec::new()) };
        let mut failed = Vec::new();
        for (row_group, metadata) in (0u32..).zip(self.footer.metadata().row_groups()) {
            let all_succeeded = metadata.num_rows() == 0 || says_success(metadata, status);
            failed.push(if all_succeeded { 0 } else { self.failed_of(row_group, status).await? });
        }
        if failed.iter().all(|rows| *rows == 0) {
            failed.clear();
        }
        Ok(failed)
    }

    async fn failed_of(&self, row_group: u32, status: usize) -> Result<u32> {
        let (reader, file, _) = self.reader(row_group, vec![status], FAILED_BATCH, &StoreReads).await?;
        let counted = tokio::task::spawn_blocking(move || {
            let Some(mut reader) = reader else { return Ok(0) };
            let mut failed = 0;
            while let Some(batch) = guarded(|| reader.next().transpose().map_err(ParquetError::from))? {
                let status = plain(batch.column(0));
                failed += (0..batch.num_rows()).filter(|row| failed_status(&status, *row).is_some()).count();
            }
            // A row group's length is 32-bit.
            Ok(failed as u32)
        });
        let counted = counted.await.map_err(|error| DatasetError::Thread { reason: error.to_string() })?;
        counted.map_err(|error| damaged(&file, row_group, &error))
    }

    /// With the images' sources, which training does not read.
    pub fn with_urls(self, names: &ColumnNames) -> Self {
        let columns = self.columns.with_url(self.footer.schema(), names);
        Self { columns, ..self }
    }

    /// The footer.
    pub(crate) fn metadata(&self) -> &ParquetMetaData {
        self.footer.metadata()
    }

    /// Rows of every row group, without those that are passed over.
    pub fn row_groups(&self) -> Vec<u32> {
        let groups = self.footer.metadata().row_groups().iter().enumerate();
        // The counts were checked when the footer was read.
        let rows = |group: &RowGroupMetaData| u32::try_from(group.num_rows()).unwrap_or(u32::MAX);
        groups.map(|(number, group)| rows(group).saturating_sub(self.failed_in(number))).collect()
    }

    fn failed_in(&self, row_group: usize) -> u32 {
        self.failed.get(row_group).copied().unwrap_or_default()
    }

    /// Reads the needed columns of a row group, in concurrent ranged reads.
    ///
    /// # Errors
    /// [`DatasetError::ReadRowGroup`] from the store, `StoreError::Changed`,
    /// [`DatasetError::DamagedRowGroup`] from the decoder.
    pub async fn fetch(&self, row_group: u32) -> Result<EncodedRowGroup> {
        self.fetch_by(row_group, u32::MAX as usize, &StoreReads).await
    }

    /// As [`ParquetFile::fetch`], to be decoded so many rows at a time.
    pub(crate) async fn fetch_in_batches(&self, row_group: u32, most_rows: usize) -> Result<EncodedRowGroup> {
        self.fetch_by(row_group, most_rows, &StoreReads).await
    }

    /// As [`ParquetFile::fetch`], with the bytes that `reads` gives.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn fetch_through(
        &self,
        row_group: u32,
        reads: &impl RangeReads,
    ) -> Result<EncodedRowGroup> {
        self.fetch_by(row_group, u32::MAX as usize, reads).await
    }

    async fn fetch_by(
        &self,
        row_group: u32,
        most_rows: usize,
        reads: &impl RangeReads,
    ) -> Result<EncodedRowGroup> {
        let projection = self.columns.projection();
        let (reader, file, rows) = self.reader(row_group, projection, most_rows, reads).await?;
        let (columns, failed) = (self.columns.clone(), self.failed_in(row_group as usize));
        Ok(EncodedRowGroup { reader, columns, file, row_group, rows, failed })
    }

    /// What reads these columns of a row group, the file's name, and the row group's rows.
    async fn reader(
        &self,
        row_group: u32,
        projection: Vec<usize>,
        most_rows: usize,
        reads: &impl RangeReads,
    ) -> Result<(Option<ParquetRecordBatchReader>, String, u32)> {
        let file = self.object.location().to_string();
        let damaged = |error: ParquetError| damaged(&file, row_group, &error);
        let group = self.footer.metadata().row_groups().get(row_group as usize);
        // The counts were checked when the footer was read.
        let rows = group.map_or(0, |group| u32::try_from(group.num_rows()).unwrap_or(u32::MAX));
        self.check_place(row_group).map_err(damaged)?;
        if most_rows > rows as usize {
            self.check_size(row_group).map_err(damaged)?;
        }
        let schema = self.footer.metadata().file_metadata().schema_descr();
        let build = || {
            ParquetPushDecoderBuilder::new_with_metadata(self.footer.clone())
                .with_row_groups(vec![row_group as usize])
                .with_projection(ProjectionMask::roots(schema, projection.iter().copied()))
                .with_batch_size((rows.max(1) as usize).min(most_rows))
                .build()
        };
        let mut decoder = guarded(build).map_err(damaged)?;
        let reader = loop {
            match guarded(|| decoder.try_next_reader()).map_err(damaged)? {
                DecodeResult::Data(reader) => break Some(reader),
                DecodeResult::Finished => break None,
                DecodeResult::NeedsData(ranges) => {
                    let read = self.read(row_group, &ranges, reads).await?;
                    guarded(|| decoder.push_ranges(ranges, read)).map_err(damaged)?;
                }
            }
        };
        Ok((reader, file, rows))
    }
}

impl ParquetFile {
    /// Refuses a row group whose footer says that it lies outside of the file: asking the store would be its
    /// error.
    fn check_place(&self, row_group: u32) -> Result<(), ParquetError> {
        let Some(group) = self.footer.metadata().row_groups().get(row_group as usize) else { return Ok(()) };
        let end = self.object.bytes();
        let outside = group.columns().iter().find(|column| {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let place = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
            let reached = place.and_then(|(start, length)| start.checked_add(length));
            reached.is_none_or(|reached| reached > end)
        });
        match outside {
            None => Ok(()),
            Some(column) => Err(ParquetError::General(format!(
                "the footer says that column `{}` lies outside of the file's {end} bytes",
                column.column_path()
            ))),
        }
    }

    /// Refuses a row group that cannot be decoded at once.
    fn check_size(&self, row_group: u32) -> Result<(), ParquetError> {
        let Some(group) = self.footer.metadata().row_groups().get(row_group as usize) else { return Ok(()) };
        let schema = self.footer.metadata().file_metadata().schema_descr();
        let mask = ProjectionMask::roots(schema, self.columns.projection());
        let read = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        let bytes = read.fold(0i64, |sum, (_, column)| sum.saturating_add(column.uncompressed_size()));
        if bytes <= MAX_DECODED {
            return Ok(());
        }
        Err(ParquetError::General(format!(
            "its columns take {bytes} bytes, more than {MAX_DECODED} are not decoded at once; `blip2 corpus ingest` writes \
             smaller row groups"
        )))
    }

    /// Ranges of a row group. Where its hash is recorded, all of it is read and compared, again if need be:
    /// what changed on the way is right the next time.
    async fn read(
        &self,
        row_group: u32,
        ranges: &[Range<u64>],
        reads: &impl RangeReads,
    ) -> Result<Vec<Bytes>> {
        let file = self.object.location().to_string();
        let failed = |error: object_store::Error| {
            let reason = error.to_string();
            let read = DatasetError::ReadRowGroup { file: file.clone(), row_group, reason };
            self.object.changed(&error).map_or(read, DatasetError::from)
        };
        let Some(record) = self.recorded.get(row_group as usize) else {
            return reads.ranges(&self.object, ranges).await.map_err(failed);
        };
        let damaged = |reason: &str| {
            let (file, reason) = (file.clone(), reason.to_owned());
            DatasetError::DamagedRowGroup { file, row_group, reason }
        };
        for again in (0..HASH_TRIES).rev() {
            let whole = [record.range()];
            let content = reads.ranges(&self.object, &whole).await.map_err(failed)?.pop().unwrap_or_default();
            let (hashed, expected) = (content.clone(), record.clone());
            // Computation, not for a tokio thread.
            let right = tokio::task::spawn_blocking(move || expected.is_of(&hashed)).await.unwrap_or(false);
            if right {
                let slices = ranges.iter().map(|range| record.slice(&content, range));
                let slices: Option<Vec<_>> = slices.collect();
                return slices.ok_or_else(|| damaged("its columns are outside of its recorded bytes"));
            }
            reads.forget(&self.object, &whole);
            tracing::warn!(file, row_group, again, "read bytes that do not have the recorded BLAKE3");
        }
        Err(damaged("its bytes do not have the recorded BLAKE3"))
    }
}
