//! A row group between its reading and its decoding.

use std::sync::atomic::{AtomicBool, Ordering};

use blip2_store::error::StoreError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::errors::ParquetError;

use crate::corpus::columns::{FileColumns, RowGroup};
use crate::error::{DatasetError, Result};
use crate::parquet_bytes::guarded;

/// Whether it was said that hashes are passed over: once is enough.
static SAID_HASHES: AtomicBool = AtomicBool::new(false);

/// A row group whose bytes have been read and not yet decoded.
pub struct EncodedRowGroup {
    /// `None` if the file has no such row group.
    pub(super) reader: Option<ParquetRecordBatchReader>,
    pub(super) columns: FileColumns,
    pub(super) file: String,
    pub(super) row_group: u32,
    pub(super) rows: u32,
    /// Rows to pass over.
    pub(super) failed: u32,
}

impl EncodedRowGroup {
    /// Decodes batch by batch; an error is the last item.
    pub(crate) fn batches(mut self) -> impl Iterator<Item = Result<RowGroup>> {
        std::iter::from_fn(move || {
            let mut reader = self.reader.take()?;
            match guarded(|| reader.next().transpose().map_err(ParquetError::from)) {
                Ok(batch) => {
                    let batch = RowGroup::new(&batch?, &self.columns);
                    self.reader = Some(reader);
                    Some(Ok(batch))
                }
                Err(error) => Some(Err(damaged(&self.file, self.row_group, &error))),
            }
        })
    }

    /// Decompresses and decodes: computation, not for a tokio thread.
    ///
    /// # Errors
    /// [`DatasetError::DamagedRowGroup`].
    pub fn decode(mut self) -> Result<RowGroup> {
        let batch = self.reader.take().and_then(|mut reader| {
            guarded(|| reader.next().transpose().map_err(ParquetError::from)).transpose()
        });
        let reason = match batch {
            Some(Ok(batch)) if batch.num_rows() == self.rows as usize => {
                let group = RowGroup::new(&batch, &self.columns);
                return self.seen(group);
            }
            Some(Ok(batch)) => format!("it holds {} of {} rows", batch.num_rows(), self.rows),
            Some(Err(error)) => error.to_string(),
            None => "it holds no rows".to_owned(),
        };
        Err(DatasetError::DamagedRowGroup { file: self.file, row_group: self.row_group, reason })
    }

    /// The rows that are to be seen, and a word on hashes that are not compared.
    fn seen(self, group: RowGroup) -> Result<RowGroup> {
        if group.hashes_passed_over()
            && self.columns.finds_out()
            && !SAID_HASHES.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                file = self.file,
                "the recorded sha256 is not that of the stored pictures (img2dataset records that of the download): it is \
                 not compared, here and wherever that is so; data.columns.sha256_of = \"download\" or \"stored\" decides"
            );
        }
        if self.failed == 0 {
            return Ok(group);
        }
        let rows = group.rows() - (self.failed as usize).min(group.rows());
        let changed = |reason: String| StoreError::Changed { file: self.file.clone(), reason };
        let seen = group.without_failed().map_err(changed)?;
        match seen.rows() == rows {
            true => Ok(seen),
            false => Err(DatasetError::from(changed(format!(
                "row group {}: {} rows were downloaded, {rows} were",
                self.row_group,
                seen.rows()
            )))),
        }
    }
}

/// The error of a row group that the decoder refuses.
pub(super) fn damaged(file: &str, row_group: u32, error: &ParquetError) -> DatasetError {
    DatasetError::DamagedRowGroup { file: file.to_owned(), row_group, reason: error.to_string() }
}
