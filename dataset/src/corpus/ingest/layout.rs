//! The columns of the files that ingestion writes.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryArray, ListBuilder, RecordBatch, StringArray, StringBuilder, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::corpus::ingest::row::ReadyRow;
use crate::error::{DatasetError, Result};

/// The columns. The image is the last, so that a row group is small columns and then one run of images.
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
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.image))),
    ];
    RecordBatch::try_new(schema(), columns)
        .map_err(|error| DatasetError::Malformed { what: "row group", reason: error.to_string() })
}
