//! Parquet files held in memory, and what shields the caller from a decoder that panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

/// One batch as a Parquet file.
///
/// # Errors
/// The writer's.
pub fn write_parquet(batch: &RecordBatch) -> parquet::errors::Result<Bytes> {
    let mut content = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut content, batch.schema(), None)?;
    writer.write(batch)?;
    writer.close()?;
    Ok(content.into())
}

/// All batches of a Parquet file held in memory.
///
/// # Errors
/// The reader's, for bytes that are no Parquet file or a damaged one.
pub fn read_parquet(content: Bytes) -> parquet::errors::Result<Vec<RecordBatch>> {
    guarded(|| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(content)?.build()?;
        Ok(reader.collect::<Result<_, _>>()?)
    })
}

/// Parquet's decoder panics on some damaged files: a damaged file all the same, not the end of the run.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(decoder_failed()))
}

pub(crate) fn decoder_failed() -> ParquetError {
    ParquetError::General("its decoder failed on damaged data".into())
}
