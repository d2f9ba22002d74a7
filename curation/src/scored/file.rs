//! The scores of a task as a Parquet file.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Float32Array, ListArray, RecordBatch, StringArray, StructArray,
    UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float32Type, UInt32Type, UInt64Type};
use blip2_dataset::error::{DatasetError, Result};
use blip2_dataset::parquet_bytes::{read_parquet, write_parquet};
use bytes::Bytes;

use super::{ScoredRow, ScoredText, TextSource};

/// Where the scores of a task are.
pub(crate) fn scored_name(task: u64) -> String {
    format!("scored/{task:06}.parquet")
}

/// The fields of a text; `dropped` where it is known.
pub(crate) fn text_fields(dropped: bool) -> Fields {
    let mut fields = vec![
        Field::new("text", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("clip_score", DataType::Float32, true),
        Field::new("itm_score", DataType::Float32, true),
    ];
    if dropped {
        fields.push(Field::new("dropped", DataType::Utf8, true));
    }
    fields.into()
}

/// The columns of some texts, in the order of [`text_fields`] without `dropped`.
pub(crate) fn text_columns(texts: &[&ScoredText]) -> Vec<ArrayRef> {
    vec![
        Arc::new(StringArray::from_iter_values(texts.iter().map(|text| &text.text))),
        Arc::new(StringArray::from_iter_values(texts.iter().map(|text| text.source.name()))),
        Arc::new(texts.iter().map(|text| text.clip_score).collect::<Float32Array>()),
        Arc::new(texts.iter().map(|text| text.itm_score).collect::<Float32Array>()),
    ]
}

/// Structures as lists of the given lengths.
pub(crate) fn list_of(
    fields: Fields,
    columns: Vec<ArrayRef>,
    lengths: impl Iterator<Item = usize>,
) -> Result<ArrayRef> {
    let item = Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), false));
    let structures = StructArray::try_new(fields, columns, None).map_err(malformed)?;
    let list = ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(structures), None);
    Ok(Arc::new(list.map_err(malformed)?))
}

pub(crate) fn to_parquet(rows: &[ScoredRow]) -> Result<Bytes> {
    let small = |field: fn(&ScoredRow) -> u32| {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(field))) as ArrayRef
    };
    let texts: Vec<&ScoredText> = rows.iter().flat_map(|row| &row.texts).collect();
    let lengths = rows.iter().map(|row| row.texts.len());
    let columns: [(&str, ArrayRef); 6] = [
        ("row_group", small(|row| row.row_group)),
        ("row", small(|row| row.row)),
        ("key", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.key)))),
        ("sha256", Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.sha256)))),
        (
            "perceptual_hash",
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.perceptual_hash))),
        ),
        ("texts", list_of(text_fields(false), text_columns(&texts), lengths)?),
    ];
    let batch = RecordBatch::try_from_iter(columns).map_err(malformed)?;
    write_parquet(&batch).map_err(malformed)
}

/// Reads what [`to_parquet`] wrote.
pub(crate) fn from_parquet(content: Bytes) -> Result<Vec<ScoredRow>> {
    let mut rows = Vec::new();
    for batch in read_parquet(content).map_err(malformed)? {
        rows.extend(rows_of(&batch).ok_or_else(|| malformed("unexpected columns"))?);
    }
    Ok(rows)
}

fn rows_of(batch: &RecordBatch) -> Option<Vec<ScoredRow>> {
    let small = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>();
    let (row_groups, numbers) = (small("row_group")?, small("row")?);
    let keys = batch.column_by_name("key")?.as_string_opt::<i32>()?;
    let digests = batch.column_by_name("sha256")?.as_binary_opt::<i32>()?;
    let hashes = batch.column_by_name("perceptual_hash")?.as_primitive_opt::<UInt64Type>()?;
    let lists = batch.column_by_name("texts")?.as_list_opt::<i32>()?;
    let row = |row: usize| {
        Some(ScoredRow {
            row_group: row_groups.value(row),
            row: numbers.value(row),
            key: keys.value(row).to_owned(),
            sha256: digests.value(row).try_into().ok()?,
            perceptual_hash: hashes.value(row),
            texts: texts_of(lists.value(row).as_struct_opt()?)?,
        })
    };
    (0..batch.num_rows()).map(row).collect()
}

fn texts_of(structures: &StructArray) -> Option<Vec<ScoredText>> {
    let text = |name: &str| structures.column_by_name(name)?.as_string_opt::<i32>();
    let score = |name: &str| structures.column_by_name(name)?.as_primitive_opt::<Float32Type>();
    let (texts, sources) = (text("text")?, text("source")?);
    let (clip, itm) = (score("clip_score")?, score("itm_score")?);
    let one = |item: usize| {
        let source = match sources.value(item) {
            "web" => TextSource::Web,
            "synthetic" => TextSource::Synthetic,
            _ => return None,
        };
        Some(ScoredText {
            text: texts.value(item).to_owned(),
            source,
            clip_score: clip.is_valid(item).then(|| clip.value(item)),
            itm_score: itm.is_valid(item).then(|| itm.value(item)),
        })
    };
    (0..structures.len()).map(one).collect()
}

fn malformed(reason: impl std::fmt::Display) -> DatasetError {
    DatasetError::Malformed { what: "file of scores", reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_back() {
        let text = |text: &str, source, clip_score, itm_score| ScoredText {
            text: text.into(),
            source,
            clip_score,
            itm_score,
        };
        let row = |row, texts| ScoredRow {
            row_group: 3,
            row,
            key: format!("k{row}"),
            sha256: [row as u8; 32],
            perceptual_hash: u64::MAX - u64::from(row),
            texts,
        };
        let rows = [
            row(0, vec![]),
            row(
                2,
                vec![
                    text("a", TextSource::Web, Some(0.25), None),
                    text("b", TextSource::Synthetic, None, Some(1.0)),
                ],
            ),
        ];
        let content = to_parquet(&rows).unwrap();
        assert_eq!(content, to_parquet(&rows).unwrap());
        assert_eq!(from_parquet(content).unwrap(), rows);
        assert!(from_parquet(to_parquet(&[]).unwrap()).unwrap().is_empty());
        assert!(from_parquet(Bytes::from_static(b"nonsense")).unwrap_err().to_string().contains("scores"));
    }
}
