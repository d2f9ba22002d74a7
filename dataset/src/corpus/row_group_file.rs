//! A file in the layout of training: how its columns are stored, and what its footer records of every row
//! group.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, KeyValue};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::corpus::row_group_hash::ROW_GROUPS;
use crate::error::{DatasetError, Result};

/// Length of a page, bytes: a page of images is closed when it is longer.
const PAGE_BYTES: usize = 1 << 20;
/// Values after which a page's length is looked at.
const LOOK_EVERY: usize = 16;

/// What a file's footer records of a row group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestedRowGroup {
    /// First byte within the file.
    pub offset: u64,
    /// Length, pages of all columns.
    pub bytes: u64,
    /// Of these bytes, hexadecimal.
    pub blake3: String,
    /// Rows.
    pub rows: u64,
    /// Captions of all rows.
    pub captions: u64,
    /// Bytes of the encoded images.
    #[serde(rename = "picture_bytes")]
    pub image_bytes: u64,
    /// Pixels of all images.
    pub pixels: u64,
    /// Shortest of the images' sides.
    pub min_side: u32,
    /// Longest of the images' sides.
    pub max_side: u32,
}

/// What is told of a row group's rows.
#[derive(Debug, Clone, Copy)]
pub struct Contents {
    /// Captions of all rows.
    pub captions: u64,
    /// Bytes of the encoded images.
    pub image_bytes: u64,
    /// Pixels of all images.
    pub pixels: u64,
    /// Shortest of the images' sides.
    pub min_side: u32,
    /// Longest of the images' sides.
    pub max_side: u32,
}

/// A file that is being written, in memory.
pub struct RowGroupFile {
    writer: ArrowWriter<Vec<u8>>,
    groups: Vec<IngestedRowGroup>,
}

impl RowGroupFile {
    /// A file of no row groups. The image is the column `jpg`.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] for a schema that Parquet does not know.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties())).map_err(failed)?;
        Ok(Self { writer, groups: Vec::new() })
    }

    /// Row groups so far.
    pub fn row_groups(&self) -> usize {
        self.groups.len()
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.groups.iter().map(|group| group.rows).sum()
    }

    /// Writes a row group.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the writer fails.
    pub fn push(&mut self, batch: &RecordBatch, contents: Contents) -> Result<()> {
        let start = self.flushed()?;
        self.writer.write(batch).map_err(failed)?;
        self.writer.flush().map_err(failed)?;
        let end = self.flushed()?;
        let Contents { captions, image_bytes, pixels, min_side, max_side } = contents;
        self.groups.push(IngestedRowGroup {
            offset: start as u64,
            bytes: (end - start) as u64,
            blake3: blake3::hash(&self.writer.inner()[start..end]).to_hex().to_string(),
            rows: batch.num_rows() as u64,
            captions,
            image_bytes,
            pixels,
            min_side,
            max_side,
        });
        Ok(())
    }

    /// The file.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the writer fails.
    pub fn finish(mut self) -> Result<Bytes> {
        let record = serde_json::to_string(&self.groups)
            .map_err(|error| DatasetError::Malformed { what: "row group", reason: error.to_string() })?;
        self.writer.append_key_value_metadata(KeyValue::new(ROW_GROUPS.to_owned(), record));
        Ok(self.writer.into_inner().map_err(failed)?.into())
    }

    /// Bytes of the file so far, all of them in the writer's buffer.
    fn flushed(&mut self) -> Result<usize> {
        self.writer.sync().map_err(|error| failed(error.into()))?;
        Ok(self.writer.inner().len())
    }
}

/// Images as they are, without statistics or dictionary; text compressed.
fn properties() -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let image = column("jpg");
    WriterProperties::builder()
        .set_created_by("blip2".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(None)
        .set_write_batch_size(LOOK_EVERY)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(column("width"), EnabledStatistics::Chunk)
        .set_column_statistics_enabled(column("height"), EnabledStatistics::Chunk)
        .set_column_dictionary_enabled(image.clone(), false)
        .set_column_encoding(image.clone(), Encoding::PLAIN)
        .set_column_compression(image, Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(column("sha256"), false)
        .set_column_dictionary_enabled(column("key"), false)
        .build()
}

fn failed(error: ParquetError) -> DatasetError {
    DatasetError::Malformed { what: "file that is written", reason: error.to_string() }
}

/// The records in a file's footer; `None` if the file has none.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn recorded_row_groups(metadata: &FileMetaData) -> Option<Result<Vec<IngestedRowGroup>, String>> {
    let pairs = metadata.key_value_metadata()?;
    let found = pairs.iter().find(|pair| pair.key == ROW_GROUPS)?;
    let text = found.value.as_deref().unwrap_or_default();
    Some(serde_json::from_str(text).map_err(|error| format!("`{ROW_GROUPS}` in its footer: {error}")))
}
