//! Which columns of a Parquet file mean what, and how a row is read from them.

mod cells;
mod file;
mod find;
mod kinds;
mod names;
mod rows;

pub(crate) use cells::{cell_text, cell_texts};
pub(crate) use file::FileColumns;
pub(crate) use find::{Roles, TextRole};
pub(crate) use kinds::{caption_texts, plain};
pub use names::{ColumnNames, HashOf};
pub use rows::RowGroup;
pub(crate) use rows::{RowFault, SUCCESS, failed_status};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::error::{DatasetError, Result};
    use arrow::array::{
        Array, ArrayRef, BinaryArray, BinaryViewArray, Int64Array, LargeBinaryArray, LargeStringArray,
        ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder, StringViewArray, StructArray,
    };

    fn group(columns: Vec<(&str, ArrayRef)>) -> Result<RowGroup> {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let found = FileColumns::find(&batch.schema(), &ColumnNames::default(), "f.parquet")?;
        let projected = batch.project(&found.projection()).unwrap();
        Ok(RowGroup::new(&projected, &found))
    }

    #[test]
    fn every_text_and_binary_layout_is_read() {
        let texts: [ArrayRef; 3] = [
            Arc::new(StringArray::from(vec!["one"])),
            Arc::new(LargeStringArray::from(vec!["one"])),
            Arc::new(StringViewArray::from(vec!["one"])),
        ];
        let images: [ArrayRef; 3] = [
            Arc::new(BinaryArray::from_vec(vec![b"img"])),
            Arc::new(LargeBinaryArray::from_vec(vec![b"img"])),
            Arc::new(BinaryViewArray::from(vec![b"img".as_slice()])),
        ];
        for (caption, image) in texts.iter().zip(&images) {
            let group = group(vec![("caption", Arc::clone(caption)), ("png", Arc::clone(image))]).unwrap();
            assert_eq!(group.captions(0), ["one"]);
            assert_eq!(group.image(0).unwrap(), b"img");
            assert_eq!(group.key(0), "");
        }
    }

    #[test]
    fn lists_are_preferred_and_fall_back_to_the_caption() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("a"), None, Some("b")]);
        lists.append_value(Vec::<Option<&str>>::new());
        lists.append_null();
        let group = group(vec![
            ("caption", Arc::new(StringArray::from(vec![Some("x"), Some("y"), None]))),
            ("captions", Arc::new(lists.finish())),
            ("jpg", Arc::new(BinaryArray::from_vec(vec![b"i"; 3]))),
        ])
        .unwrap();
        assert_eq!(group.captions(0), ["a", "b"]);
        assert_eq!(group.captions(1), ["y"]);
        assert!(group.captions(2).is_empty());
    }

    #[test]
    fn answers_are_texts_lists_or_structures_and_captions_need_not_be_there() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("yes"), None, Some("no"), Some("yes")]);
        let field = Arc::new(Field::new("answer", DataType::Utf8, true));
        let said: ArrayRef = Arc::new(StringArray::from(vec!["yes", "no", "yes"]));
        let structures = StructArray::from(vec![(field, said)]);
        let item = Arc::new(Field::new("item", structures.data_type().clone(), true));
        let offsets = OffsetBuffer::new(vec![0, 3].into());
        let structures = ListArray::new(item, offsets, Arc::new(structures), None);
        let columns: [(ArrayRef, u32); 3] = [
            (Arc::new(StringArray::from(vec!["yes"])), 1),
            (Arc::new(lists.finish()), 3),
            (Arc::new(structures), 3),
        ];
        for (answers, total) in columns {
            let columns: [(&str, ArrayRef); 3] = [
                ("asked", Arc::new(StringArray::from(vec!["Is it RED?"]))),
                ("said", answers),
                ("png", Arc::new(BinaryArray::from_vec(vec![b"img"]))),
            ];
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let names =
                ColumnNames { question: "asked".into(), answers: "said".into(), ..ColumnNames::default() };
            let found = FileColumns::find(&batch.schema(), &names, "f.parquet").unwrap();
            let group = RowGroup::new(&batch.project(&found.projection()).unwrap(), &found);
            let question = group.question(0).unwrap();
            assert_eq!((question.text.as_str(), question.answers.most_frequent()), ("is it red?", "yes"));
            assert_eq!((question.answers.total(), group.captions(0).len()), (total, 0));
            assert_eq!(group.answers(0), question.answers);
            let error = FileColumns::find(&batch.schema(), &names.without_questions(), "f.parquet");
            assert!(matches!(error, Err(DatasetError::MissingColumn { .. })), "{error:?}");
        }
    }

    #[test]
    fn unusable_rows_say_why() {
        let right = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        let group = group(vec![
            ("key", Arc::new(Int64Array::from(vec![10, 11, 12, 13]))),
            (
                "status",
                Arc::new(StringArray::from(vec![Some("success"), Some("failed_to_download"), None, None])),
            ),
            ("caption", Arc::new(StringArray::from(vec!["a"; 4]))),
            ("sha256", Arc::new(StringArray::from(vec![Some(right), None, Some("00"), None]))),
            ("jpg", Arc::new(BinaryArray::from(vec![Some(b"x".as_slice()), Some(b"x"), Some(b"x"), None]))),
        ])
        .unwrap();
        assert_eq!(group.image(0).unwrap(), b"x");
        assert_eq!(group.image(1).unwrap_err(), "status is `failed_to_download`");
        assert!(group.image(2).unwrap_err().contains("sha256"));
        assert_eq!(group.image(3).unwrap_err(), "it has no picture");
        assert_eq!(group.key(3), "13");
    }

    #[test]
    fn missing_and_mistyped_columns_are_named() {
        let error = group(vec![
            ("caption", Arc::new(StringArray::from(vec!["a"]))),
            ("picture", Arc::new(Int64Array::from(vec![1]))),
        ]);
        let message = error.unwrap_err().to_string();
        assert!(message.contains("f.parquet") && message.contains("caption, picture"), "{message}");
        let error = group(vec![
            ("caption", Arc::new(StringArray::from(vec!["a"]))),
            ("jpg", Arc::new(Int64Array::from(vec![1]))),
        ]);
        assert!(matches!(error.unwrap_err(), DatasetError::ColumnType { column, .. } if column == "jpg"));
    }

    #[test]
    fn configured_names_win() {
        let fields = ["jpg", "photo"].map(|name| Field::new(name, DataType::Binary, true));
        let text = Field::new("alt", DataType::Utf8, true);
        let schema = Schema::new(fields.into_iter().chain([text]).collect::<Vec<_>>());
        let names = ColumnNames { image: "photo".into(), caption: "alt".into(), ..ColumnNames::default() };
        let found = FileColumns::find(&schema, &names, "f").unwrap();
        assert_eq!((found.image, found.captions), (1, vec![2]));
    }
}
