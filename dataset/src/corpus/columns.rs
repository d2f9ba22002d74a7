//! Which columns of a Parquet file mean what, and how a row is read from them.

mod find;
mod rows;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, FieldRef, Fields, Schema};
use serde::{Deserialize, Serialize};

use crate::error::{DatasetError, Result};
pub(crate) use find::{Roles, TextRole};
pub use rows::RowGroup;
pub(crate) use rows::{RowFault, SUCCESS, cell_text, cell_texts, failed_status};

/// The field of a structure that is a picture.
const PICTURE_BYTES: &str = "bytes";
/// The fields of a structure that may be a caption, by preference.
const CAPTION_TEXTS: [&str; 3] = ["text", "raw", "caption"];
/// The field that says why a caption of a structure is not used; one that is null, or not there, is used.
const CAPTION_DROPPED: &str = "dropped";
/// What is read of a caption, bytes: far more than the words that are kept, and a bound for what a tokenizer meets.
const CAPTION_BYTES: usize = 16 << 10;

/// Whose SHA-256 a file records beside its pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashOf {
    /// Found from the first rows of each row group: where hardly any hash is that of the stored bytes, none is compared.
    #[default]
    Auto,
    /// Of the stored bytes: a row with another is not used.
    Stored,
    /// Of what was downloaded, before it was resized and encoded anew, as img2dataset records it: not compared.
    Download,
}

/// Names of the columns, as img2dataset writes them by default.
///
/// `image` and one of `caption` and `captions` are needed; the others are used when a file has them. An empty name
/// switches an optional column off. Where a name is the default and a file has no such column, the names that the
/// published data sets use are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnNames {
    /// Encoded picture; if absent, the first of `jpg`, `png`, `webp`, `image`, `jpeg`, `img`, `picture` that exists.
    pub image: String,
    /// One caption (text), or several (list of text); if both this and `captions` are absent and neither was named
    /// otherwise, the first of `TEXT`, `alt_text`, `top_caption`, `re_caption` and their like that exists.
    pub caption: String,
    /// Several captions, of which one is drawn per step; preferred to `caption`. A list of text, or of structures as
    /// curation writes them: their `text`, where `dropped` is null or not there.
    pub captions: String,
    /// Name of the row in reports.
    pub key: String,
    /// Rows with another value than `success` are not used.
    pub status: String,
    /// SHA-256 of the picture's bytes, as hexadecimal text or 32 bytes.
    pub sha256: String,
    /// Whose SHA-256 that is.
    pub sha256_of: HashOf,
    /// Source of the picture.
    pub url: String,
}

impl Default for ColumnNames {
    fn default() -> Self {
        Self {
            image: "jpg".into(),
            caption: "caption".into(),
            captions: "captions".into(),
            key: "key".into(),
            status: "status".into(),
            sha256: "sha256".into(),
            sha256_of: HashOf::Auto,
            url: "url".into(),
        }
    }
}

/// The columns of one file: indices into its schema, ascending in no particular order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileColumns {
    image: usize,
    /// Text or lists of text.
    captions: Vec<usize>,
    key: Option<usize>,
    status: Option<usize>,
    sha256: Option<usize>,
    hash_of: HashOf,
    /// Only where asked for: training does not read it.
    url: Option<usize>,
}

impl FileColumns {
    /// Finds the columns in a file's schema and checks their types. Columns of Arrow's null type are absent ones.
    ///
    /// # Errors
    /// [`DatasetError::MissingColumn`], [`DatasetError::RepeatedColumn`], [`DatasetError::ColumnType`].
    pub(crate) fn find(schema: &Schema, names: &ColumnNames, file: &str) -> Result<Self> {
        let roles = Roles { schema, names, file };
        let columns = Self {
            image: roles.image()?,
            captions: roles.captions()?,
            key: roles.optional(TextRole::Key)?,
            status: roles.named(&names.status)?,
            sha256: roles.named(&names.sha256)?,
            hash_of: names.sha256_of,
            url: None,
        };
        columns.check_types(schema, file)?;
        Ok(columns)
    }

    /// With the pictures' sources, if the file has them.
    pub(crate) fn with_url(self, schema: &Schema, names: &ColumnNames) -> Self {
        let url = Roles { schema, names, file: "" }.optional(TextRole::Url).ok().flatten();
        let url = url.filter(|place| is_text(schema.field(*place).data_type()));
        Self { url, ..self }
    }

    /// Of a file that records the hash of every row group: it was written by ingestion or curation, which record the
    /// SHA-256 of what they store.
    pub(crate) fn with_stored_hash(self) -> Self {
        let hash_of = if self.hash_of == HashOf::Auto { HashOf::Stored } else { self.hash_of };
        Self { hash_of, ..self }
    }

    /// Whether it is found out from the rows whose hashes are recorded.
    pub(crate) fn finds_out(&self) -> bool {
        self.hash_of == HashOf::Auto
    }

    /// Index of the column that says which downloads failed.
    pub(crate) fn status(&self) -> Option<usize> {
        self.status
    }

    /// Indices of all columns to read.
    pub(crate) fn projection(&self) -> Vec<usize> {
        let optional = [self.key, self.status, self.sha256, self.url].into_iter().flatten();
        let mut indices: Vec<_> = self.captions.iter().copied().chain([self.image]).chain(optional).collect();
        indices.sort_unstable();
        indices.dedup();
        indices
    }

    fn check_types(&self, schema: &Schema, file: &str) -> Result<()> {
        let check = |index: usize, wanted: &'static str, accepts: fn(&DataType) -> bool| {
            let field = schema.field(index);
            if accepts(field.data_type()) {
                return Ok(());
            }
            Err(DatasetError::ColumnType {
                file: file.to_owned(),
                column: field.name().clone(),
                found: field.data_type().to_string(),
                wanted,
            })
        };
        check(self.image, "binary (or a structure with binary `bytes`)", is_picture)?;
        for caption in &self.captions {
            check(*caption, "text, a list of text, or a list of structures with `text`", is_caption)?;
        }
        if let Some(status) = self.status {
            check(status, "text", is_text)?;
        }
        self.sha256
            .map_or(Ok(()), |sha256| check(sha256, "text or binary", |kind| is_text(kind) || is_binary(kind)))
    }
}

/// Nothing but nulls, as writers give a column without a single value.
fn is_nothing(kind: &DataType) -> bool {
    match kind {
        DataType::Null => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_nothing(item.data_type())
        }
        DataType::Dictionary(_, values) => is_nothing(values),
        _ => false,
    }
}

/// What captions can be read from.
fn is_caption(kind: &DataType) -> bool {
    is_text(kind) || is_text_list(kind) || is_structure_list(kind) || is_text_structure(kind)
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_binary(kind: &DataType) -> bool {
    match kind {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            true
        }
        DataType::Dictionary(_, values) => is_binary(values),
        _ => false,
    }
}

/// Binary, or a structure with binary `bytes`, as Hugging Face `datasets` stores pictures.
fn is_picture(kind: &DataType) -> bool {
    match kind {
        DataType::Struct(fields) => {
            fields.iter().any(|field| field.name() == PICTURE_BYTES && is_binary(field.data_type()))
        }
        other => is_binary(other),
    }
}

/// The cells themselves: of a structure its bytes, of a dictionary its values.
pub(crate) fn plain(column: &ArrayRef) -> ArrayRef {
    let inner = match column.data_type() {
        DataType::Struct(_) => column.as_struct().column_by_name(PICTURE_BYTES).unwrap_or(column),
        _ => column,
    };
    match inner.data_type() {
        // `check_types` let only dictionaries pass whose values have such a type.
        DataType::Dictionary(_, values) => {
            arrow::compute::cast(inner, values).unwrap_or_else(|_| ArrayRef::clone(inner))
        }
        _ => ArrayRef::clone(inner),
    }
}

fn is_text_list(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) => {
            // A dictionary within a list is not unpacked.
            !matches!(item.data_type(), DataType::Dictionary(..)) && is_text(item.data_type())
        }
        _ => false,
    }
}

/// The field of a structure that is its caption.
fn caption_field(fields: &Fields) -> Option<&FieldRef> {
    let is_plain = |field: &&FieldRef| {
        !matches!(field.data_type(), DataType::Dictionary(..)) && is_text(field.data_type())
    };
    let named = |name: &&str| fields.iter().find(|field| field.name() == *name).filter(is_plain);
    CAPTION_TEXTS.iter().find_map(named)
}

/// A structure with a caption, as Hugging Face `datasets` stores COCO's sentences.
fn is_text_structure(kind: &DataType) -> bool {
    matches!(kind, DataType::Struct(fields) if caption_field(fields).is_some())
}

/// A list of structures with a caption, as curation writes them.
fn is_structure_list(kind: &DataType) -> bool {
    let DataType::List(item) = kind else { return false };
    let DataType::Struct(fields) = item.data_type() else { return false };
    let dropped = fields.iter().find(|field| field.name() == CAPTION_DROPPED);
    caption_field(fields).is_some() && dropped.is_none_or(|field| *field.data_type() == DataType::Utf8)
}

/// Captions as text or lists of text: of structures their texts, as far as these are kept.
pub(crate) fn caption_texts(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Struct(fields) => {
            let field = caption_field(fields).map(|field| field.name().clone());
            let texts = field.and_then(|name| column.as_struct().column_by_name(&name));
            texts.map_or_else(|| ArrayRef::clone(column), ArrayRef::clone)
        }
        kind if is_structure_list(kind) => listed_texts(column),
        _ => plain(column),
    }
}

/// The texts of a list of structures.
fn listed_texts(column: &ArrayRef) -> ArrayRef {
    let list = column.as_list::<i32>();
    let structures = list.values().as_struct();
    let text = caption_field(structures.fields()).and_then(|field| structures.column_by_name(field.name()));
    let dropped = structures.column_by_name(CAPTION_DROPPED).and_then(|column| column.as_string_opt::<i32>());
    let kept =
        |item: &usize| structures.is_valid(*item) && dropped.is_none_or(|dropped| dropped.is_null(*item));
    let mut texts = ListBuilder::new(StringBuilder::new());
    for (row, ends) in list.value_offsets().windows(2).enumerate() {
        // Offsets of a list are not negative; what a null row holds is not looked at.
        let items = if list.is_null(row) { 0..0 } else { ends[0] as usize..ends[1] as usize };
        let items = items.filter(kept).filter_map(|item| text.and_then(|text| cell_text(text, item)));
        texts.append_value(items.map(Some));
    }
    Arc::new(texts.finish())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;
    use arrow::array::{
        BinaryArray, BinaryViewArray, Int64Array, LargeBinaryArray, LargeStringArray, ListBuilder,
        RecordBatch, StringArray, StringBuilder, StringViewArray,
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
