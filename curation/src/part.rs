//! Rows that keep a text, in the layout of training.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use blip2_dataset::corpus::row_group_file::Contents;
use blip2_dataset::error::{DatasetError, Result};

use crate::scored::ScoredText;
use crate::scored::file::{list_of, text_columns, text_fields};
use crate::select::{DropReason, JudgedText};
use crate::task::TaskRow;

/// A row that is written: its texts ordered by score, one of them kept at least.
pub(crate) struct CuratedRow<'a> {
    pub(crate) row: &'a TaskRow,
    pub(crate) texts: Vec<JudgedText>,
}

impl CuratedRow<'_> {
    /// The best text that is kept.
    fn best(&self) -> &str {
        self.texts.iter().find(|judged| judged.dropped.is_none()).map_or("", |judged| &judged.text.text)
    }
}

/// The columns: those of ingestion, with structures for texts. The image is the last.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let item = Arc::new(Field::new_list_field(DataType::Struct(text_fields(true)), false));
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("url", DataType::Utf8, true),
        Field::new("caption", DataType::Utf8, false),
        Field::new("captions", DataType::List(item), false),
        Field::new("width", DataType::UInt32, false),
        Field::new("height", DataType::UInt32, false),
        Field::new("sha256", DataType::Utf8, false),
        Field::new("jpg", DataType::Binary, false),
    ]))
});

pub(crate) fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// The rows as one batch.
pub(crate) fn batch(rows: &[CuratedRow<'_>]) -> Result<RecordBatch> {
    let text = |value: fn(&TaskRow) -> &str| {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|curated| value(curated.row)))) as ArrayRef
    };
    let side = |side: usize| {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|curated| curated.row.size[side]))) as ArrayRef
    };
    let judged: Vec<&JudgedText> = rows.iter().flat_map(|curated| &curated.texts).collect();
    let texts: Vec<&ScoredText> = judged.iter().map(|judged| &judged.text).collect();
    let reasons: StringArray = judged.iter().map(|judged| judged.dropped.map(DropReason::name)).collect();
    let mut fields = text_columns(&texts);
    fields.push(Arc::new(reasons));
    let columns = vec![
        text(|row| &row.key),
        Arc::new(rows.iter().map(|curated| curated.row.url.as_deref()).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(CuratedRow::best))),
        list_of(text_fields(true), fields, rows.iter().map(|curated| curated.texts.len()))?,
        side(0),
        side(1),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|curated| hex(&curated.row.sha256)))),
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|curated| &curated.row.image))),
    ];
    RecordBatch::try_new(schema(), columns)
        .map_err(|error| DatasetError::Malformed { what: "row group", reason: error.to_string() })
}

/// What the footer says of these rows.
pub(crate) fn contents(rows: &[CuratedRow<'_>]) -> Contents {
    let sides = || rows.iter().flat_map(|curated| curated.row.size);
    let kept =
        |curated: &CuratedRow<'_>| curated.texts.iter().filter(|judged| judged.dropped.is_none()).count();
    Contents {
        captions: rows.iter().map(|curated| kept(curated) as u64).sum(),
        image_bytes: rows.iter().map(|curated| curated.row.image.len() as u64).sum(),
        pixels: rows.iter().map(|curated| curated.row.size.map(u64::from).iter().product::<u64>()).sum(),
        min_side: sides().min().unwrap_or_default(),
        max_side: sides().max().unwrap_or_default(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
