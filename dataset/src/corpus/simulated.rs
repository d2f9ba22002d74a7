//! A corpus that consists of footers: real Parquet files as far as a manifest reads them, with nothing in
//! between.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use blip2_store::error::StoreError;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    FileMetaData, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader, ParquetMetaDataWriter,
    RowGroupMetaData,
};

use crate::error::{DatasetError, Result};
use crate::parquet_bytes::write_parquet;

/// The size of a corpus of which only the footers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulatedCorpus {
    /// Files.
    pub files: u32,
    /// Row groups of each.
    pub row_groups: u32,
    /// Rows of each row group.
    pub rows_per_group: u32,
    /// Bytes that a row takes.
    pub bytes_per_row: u64,
}

impl SimulatedCorpus {
    /// Writes the files as `part-00000.parquet` and so on into `folder`. They have the length of a corpus, of
    /// which the disk keeps the footers alone where it knows sparse files; their rows cannot be read.
    ///
    /// # Errors
    /// [`DatasetError::Setting`] for a file that is too long, [`StoreError::Failed`] if the disk refuses.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let footer = self.footer().map_err(|error| self.refused(&error.to_string()))?;
        let rows = u64::from(self.row_groups) * u64::from(self.rows_per_group);
        let data = rows.checked_mul(self.bytes_per_row).and_then(|data| data.checked_add(4));
        let data = data.filter(|data| i64::try_from(*data).is_ok());
        let data = data.ok_or_else(|| self.refused("its files would be longer than 2^63 bytes"))?;
        for number in 0..self.files {
            let path = folder.join(format!("part-{number:05}.parquet"));
            write_sparse(&path, data, &footer).map_err(|error| StoreError::Failed {
                location: path.display().to_string(),
                action: "write",
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// The end of each file.
    fn footer(&self) -> Result<Vec<u8>, ParquetError> {
        let example = example()?;
        let file = example.file_metadata();
        let groups = (0..self.row_groups).map(|number| self.row_group(&example, number));
        let rows = i64::from(self.row_groups) * i64::from(self.rows_per_group);
        let schema = file.schema_descr_ptr();
        let key_values = file.key_value_metadata().cloned();
        let file = FileMetaData::new(file.version(), rows, None, key_values, schema, None);
        let metadata =
            ParquetMetaDataBuilder::new(file).set_row_groups(groups.collect::<Result<_, _>>()?).build();
        let mut footer = Vec::new();
        ParquetMetaDataWriter::new(&mut footer, &metadata).finish()?;
        Ok(footer)
    }

    /// The example's row group with other numbers; the images take all the bytes but one for each other
    /// column.
    fn row_group(&self, example: &ParquetMetaData, number: u32) -> Result<RowGroupMetaData, ParquetError> {
        let group = example.row_group(0);
        let bytes = i64::try_from(u64::from(self.rows_per_group).saturating_mul(self.bytes_per_row));
        let bytes = bytes.map_err(|_| ParquetError::General("its row groups would be too long".into()))?;
        let columns = i64::try_from(group.columns().len()).unwrap_or(i64::MAX);
        let mut offset = 4 + i64::from(number).saturating_mul(bytes);
        let chunks = group.columns().iter().map(|chunk| {
            let is_image = chunk.column_path().string() == "jpg";
            let length = if is_image { (bytes - (columns - 1)).max(1) } else { 1 };
            let chunk = chunk.clone().into_builder().set_num_values(i64::from(self.rows_per_group));
            let chunk = chunk.set_total_compressed_size(length).set_total_uncompressed_size(length);
            let chunk = chunk.set_data_page_offset(offset).set_dictionary_page_offset(None);
            offset += length;
            chunk.build()
        });
        let chunks = chunks.collect::<Result<Vec<_>, _>>()?;
        let group = group.clone().into_builder().set_num_rows(i64::from(self.rows_per_group));
        group.set_total_byte_size(bytes).set_column_metadata(chunks).build()
    }

    fn refused(&self, reason: &str) -> DatasetError {
        DatasetError::Setting(format!("this corpus cannot be made up: {reason}"))
    }
}

/// The metadata of a file with the columns of img2dataset and one row.
fn example() -> Result<ParquetMetaData, ParquetError> {
    let text = |value: &str| Arc::new(StringArray::from(vec![Some(value)])) as ArrayRef;
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("key", text("000000000"), true),
        ("caption", text("a caption"), true),
        ("url", text("https://example.com"), true),
        ("status", text("success"), true),
        ("sha256", text(&"0".repeat(64)), true),
        ("jpg", Arc::new(BinaryArray::from_vec(vec![b"picture"])) as ArrayRef, true),
    ])?;
    ParquetMetaDataReader::new().parse_and_finish(&Bytes::clone(&write_parquet(&batch)?))
}

fn write_sparse(path: &Path, data: u64, footer: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(b"PAR1")?;
    file.seek(SeekFrom::Start(data))?;
    file.write_all(footer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::columns::ColumnNames;
    use crate::corpus::manifest::Manifest;

    #[tokio::test]
    async fn footers_open_as_a_corpus_of_that_size() {
        let folder = tempfile::tempdir().unwrap();
        let corpus =
            SimulatedCorpus { files: 30, row_groups: 10, rows_per_group: 993, bytes_per_row: 60_000 };
        corpus.write(folder.path()).unwrap();
        let pattern = format!("{}/*.parquet", folder.path().display());
        let manifest = Manifest::open(&[pattern], &ColumnNames::default()).await.unwrap();
        assert_eq!((manifest.files.len(), manifest.rows()), (30, 30 * 9930));
        assert!(manifest.files.iter().all(|file| file.row_groups == [993; 10] && file.bytes > 9930 * 60_000));
        assert!(manifest.files.iter().all(|file| file.etag.is_some()));
    }

    #[test]
    fn a_size_that_cannot_be_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = SimulatedCorpus {
            files: 1,
            row_groups: 10,
            rows_per_group: 1 << 30,
            bytes_per_row: u64::MAX / 4,
        };
        assert!(matches!(corpus.write(folder.path()), Err(DatasetError::Setting(_))));
    }
}
