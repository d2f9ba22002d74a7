//! The columns of the files that ingestion writes, how they are stored, and what is recorded of their row groups.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryArray, ListBuilder, RecordBatch, StringArray, StringBuilder, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::FileMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::error::{DatasetError, Result};
use crate::ingest::row::ReadyRow;
use crate::row_group_hash::ROW_GROUPS;

/// Length of a page, bytes: a page of pictures is closed when it is longer.
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
    /// Bytes of the encoded pictures.
    pub picture_bytes: u64,
    /// Pixels of all pictures.
    pub pixels: u64,
    /// Shortest of the pictures' sides.
    pub min_side: u32,
    /// Longest of the pictures' sides.
    pub max_side: u32,
}

/// The columns. The picture is the last, so that a row group is small columns and then one run of pictures.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("url", DataType::Utf8, true),
        Field::new("caption", DataType::Utf8, false),
        Field::new("captions", DataType::List(item), true),
        Field::new("width", DataType::UInt32, false),
        Field::new("height", DataType::UInt32, false),
        Field::new("sha256", DataType::Utf8, false),
        Field::new("jpg", DataType::Binary, false),
    ]))
});

pub(super) fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// Pictures as they are, without statistics or dictionary; text compressed.
pub(super) fn properties() -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let picture = column("jpg");
    WriterProperties::builder()
        .set_created_by("blip2 corpus ingest".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(None)
        .set_write_batch_size(LOOK_EVERY)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(column("width"), EnabledStatistics::Chunk)
        .set_column_statistics_enabled(column("height"), EnabledStatistics::Chunk)
        .set_column_dictionary_enabled(picture.clone(), false)
        .set_column_encoding(picture.clone(), Encoding::PLAIN)
        .set_column_compression(picture, Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(column("sha256"), false)
        .set_column_dictionary_enabled(column("key"), false)
        .build()
}

/// Rows as one batch. `captions` is null where a row has a single one.
pub(super) fn batch(rows: &[ReadyRow]) -> Result<RecordBatch> {
    let text = |value: fn(&ReadyRow) -> &str| {
        Arc::new(StringArray::from_iter_values(rows.iter().map(value))) as ArrayRef
    };
    let number = |value: fn(&ReadyRow) -> u32| {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(value))) as ArrayRef
    };
    let mut captions = ListBuilder::new(StringBuilder::new());
    for row in rows {
        match row.captions.len() {
            0 | 1 => captions.append_null(),
            _ => captions.append_value(row.captions.iter().map(Some)),
        }
    }
    let columns: Vec<ArrayRef> = vec![
        text(|row| &row.key),
        Arc::new(rows.iter().map(|row| row.url.as_deref()).collect::<StringArray>()),
        text(|row| row.captions.first().map_or("", String::as_str)),
        Arc::new(captions.finish()),
        number(|row| row.width),
        number(|row| row.height),
        text(|row| &row.sha256),
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.picture))),
    ];
    RecordBatch::try_new(schema(), columns)
        .map_err(|error| DatasetError::Malformed { what: "row group", reason: error.to_string() })
}

/// The records in a file's footer; `None` if the file is not ingestion's.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn recorded_row_groups(metadata: &FileMetaData) -> Option<Result<Vec<IngestedRowGroup>, String>> {
    let pairs = metadata.key_value_metadata()?;
    let found = pairs.iter().find(|pair| pair.key == ROW_GROUPS)?;
    let text = found.value.as_deref().unwrap_or_default();
    Some(serde_json::from_str(text).map_err(|error| format!("`{ROW_GROUPS}` in its footer: {error}")))
}
