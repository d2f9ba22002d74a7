//! Which columns of a Parquet file mean what, and how a row is read from them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use crate::error::{DatasetError, Result};

/// Image columns looked for, in order, when the configured one is absent.
const IMAGE_COLUMNS: [&str; 4] = ["jpg", "png", "webp", "image"];
/// The field of a structure that is a picture.
const PICTURE_BYTES: &str = "bytes";
/// The field of a structure that is a caption.
const CAPTION_TEXT: &str = "text";
/// The field that says why a caption of a structure is not used; one that is null, or not there, is used.
const CAPTION_DROPPED: &str = "dropped";
/// What is read of a caption, bytes: far more than the words that are kept, and a bound for what a tokenizer meets.
const CAPTION_BYTES: usize = 16 << 10;

/// Names of the columns, as img2dataset writes them by default.
///
/// `image` and one of `caption` and `captions` are needed; the others are used when a file has them. An empty name
/// switches an optional column off: do so for `sha256` when the pictures were resized after it was computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnNames {
    /// Encoded picture; if absent, the first of `jpg`, `png`, `webp`, `image` that exists.
    pub image: String,
    /// One caption (text), or several (list of text).
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
    /// Only where asked for: training does not read it.
    url: Option<usize>,
}

impl FileColumns {
    /// Finds the configured columns in a file's schema and checks their types.
    pub(crate) fn find(schema: &Schema, names: &ColumnNames, file: &str) -> Result<Self> {
        let index =
            |name: &str| schema.fields().iter().position(|field| !name.is_empty() && field.name() == name);
        let missing = |wanted: String| DatasetError::MissingColumn {
            file: file.to_owned(),
            wanted,
            found: schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", "),
        };
        let image = std::iter::once(names.image.as_str())
            .chain(IMAGE_COLUMNS)
            .find_map(index)
            .ok_or_else(|| missing(format!("image (`{}`)", names.image)))?;
        // Both are kept: a row whose list is empty falls back to its single caption.
        let captions: Vec<_> =
            [&names.captions, &names.caption].into_iter().filter_map(|name| index(name)).collect();
        if captions.is_empty() {
            return Err(missing(format!("caption (`{}` or `{}`)", names.caption, names.captions)));
        }
        let columns = Self {
            image,
            captions,
            key: index(&names.key),
            status: index(&names.status),
            sha256: index(&names.sha256),
            url: None,
        };
        columns.check_types(schema, file)?;
        Ok(columns)
    }

    /// With the pictures' sources, if the file has them.
    pub(crate) fn with_url(self, schema: &Schema, names: &ColumnNames) -> Self {
        let named = |field: &Field| !names.url.is_empty() && *field.name() == names.url;
        let url = schema.fields().iter().position(|field| named(field) && is_text(field.data_type()));
        Self { url, ..self }
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
            let accepts = |kind: &DataType| is_text(kind) || is_text_list(kind) || is_curated_list(kind);
            check(*caption, "text, a list of text, or a list of structures with `text`", accepts)?;
        }
        if let Some(status) = self.status {
            check(status, "text", is_text)?;
        }
        self.sha256
            .map_or(Ok(()), |sha256| check(sha256, "text or binary", |kind| is_text(kind) || is_binary(kind)))
    }
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
fn plain(column: &ArrayRef) -> ArrayRef {
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

/// A list of structures as curation writes them.
fn is_curated_list(kind: &DataType) -> bool {
    let DataType::List(item) = kind else { return false };
    let DataType::Struct(fields) = item.data_type() else { return false };
    let is_utf8 = |name: &str| {
        fields.iter().find(|field| field.name() == name).map(|field| *field.data_type() == DataType::Utf8)
    };
    is_utf8(CAPTION_TEXT) == Some(true) && is_utf8(CAPTION_DROPPED) != Some(false)
}

/// Captions as text or lists of text: of curated lists the texts that are kept.
fn caption_texts(column: &ArrayRef) -> ArrayRef {
    if !is_curated_list(column.data_type()) {
        return plain(column);
    }
    let list = column.as_list::<i32>();
    let structures = list.values().as_struct();
    let field = |name: &str| structures.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let (text, dropped) = (field(CAPTION_TEXT), field(CAPTION_DROPPED));
    let kept =
        |item: &usize| structures.is_valid(*item) && dropped.is_none_or(|dropped| dropped.is_null(*item));
    let mut texts = ListBuilder::new(StringBuilder::new());
    for (row, ends) in list.value_offsets().windows(2).enumerate() {
        // Offsets of a list are not negative; what a null row holds is not looked at.
        let items = if list.is_null(row) { 0..0 } else { ends[0] as usize..ends[1] as usize };
        let items = items
            .filter(kept)
            .filter_map(|item| text.filter(|text| text.is_valid(item)).map(|text| text.value(item)));
        texts.append_value(items.map(Some));
    }
    Arc::new(texts.finish())
}

/// The needed columns of one row group, in memory.
#[derive(Debug)]
pub(crate) struct RowGroup {
    image: ArrayRef,
    captions: Vec<ArrayRef>,
    key: Option<ArrayRef>,
    status: Option<ArrayRef>,
    sha256: Option<ArrayRef>,
    url: Option<ArrayRef>,
    rows: usize,
    bytes: u64,
}

impl RowGroup {
    /// From a batch holding [`FileColumns::projection`], in that order.
    pub(crate) fn new(batch: &RecordBatch, columns: &FileColumns) -> Self {
        let projection = columns.projection();
        // `projection` holds every index of `columns`, so the search always succeeds.
        let found = |index: usize| batch.column(projection.binary_search(&index).unwrap_or_default());
        let column = |index: usize| plain(found(index));
        Self {
            image: column(columns.image),
            captions: columns.captions.iter().map(|index| caption_texts(found(*index))).collect(),
            key: columns.key.map(column),
            status: columns.status.map(column),
            sha256: columns.sha256.map(column),
            url: columns.url.map(column),
            rows: batch.num_rows(),
            bytes: batch.get_array_memory_size() as u64,
        }
    }

    /// Rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Memory held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The row's key, or empty text.
    pub(crate) fn key(&self, row: usize) -> String {
        let shown = |keys: &ArrayRef| arrow::util::display::array_value_to_string(keys, row).ok();
        self.key.as_ref().and_then(shown).unwrap_or_default()
    }

    /// The picture's source, if the file was opened with it.
    pub(crate) fn url(&self, row: usize) -> Option<&str> {
        self.url.as_ref().and_then(|urls| text(urls, row))
    }

    /// The picture's bytes after the checks that need no decoding, or why the row cannot be used.
    pub(crate) fn image(&self, row: usize) -> Result<&[u8], String> {
        self.checked_image(row).map_err(|fault| fault.to_string())
    }

    /// The same, with the fault as such.
    pub(crate) fn checked_image(&self, row: usize) -> Result<&[u8], RowFault> {
        if let Some(status) = self.status.as_ref().and_then(|status| text(status, row))
            && status != "success"
        {
            return Err(RowFault::Status(status.to_owned()));
        }
        let image = binary(&self.image, row).filter(|image| !image.is_empty()).ok_or(RowFault::NoPicture)?;
        if self.sha256.as_ref().is_some_and(|expected| !hash_agrees(expected, row, image)) {
            return Err(RowFault::WrongHash);
        }
        Ok(image)
    }

    /// The row's captions, those of the list or the single one, each cut to 16 KiB.
    pub(crate) fn captions(&self, row: usize) -> Vec<&str> {
        let cut = |caption: &'_ str| caption.floor_char_boundary(CAPTION_BYTES);
        self.written_captions(row).into_iter().map(|caption| &caption[..cut(caption)]).collect()
    }

    /// The row's captions as written.
    pub(crate) fn written_captions(&self, row: usize) -> Vec<&str> {
        self.captions
            .iter()
            .map(|column| texts(column, row))
            .find(|found| !found.is_empty())
            .unwrap_or_default()
    }
}

/// Why a row's picture cannot be used, before it is decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowFault {
    /// Its download failed.
    #[error("status is `{0}`")]
    Status(String),
    /// Null, or no bytes.
    #[error("it has no picture")]
    NoPicture,
    /// The bytes are others.
    #[error("its picture does not have the recorded sha256")]
    WrongHash,
}

/// Whether the recorded hash is absent or that of `image`.
fn hash_agrees(expected: &ArrayRef, row: usize, image: &[u8]) -> bool {
    let actual = sha2::Sha256::digest(image);
    match (text(expected, row), binary(expected, row)) {
        (Some(""), _) => true,
        (Some(hex), _) => {
            let written: String = actual.iter().map(|byte| format!("{byte:02x}")).collect();
            hex.eq_ignore_ascii_case(&written)
        }
        (None, Some(bytes)) => bytes == actual.as_slice(),
        (None, None) => true,
    }
}

/// A text cell of any column; `None` if null or not text.
pub(crate) fn cell_text(column: &dyn Array, row: usize) -> Option<&str> {
    text(column, row)
}

/// A text cell; `None` if null or not text.
fn text(column: &dyn Array, row: usize) -> Option<&str> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(column.as_string_view().value(row)),
        _ => None,
    }
}

/// A binary cell; `None` if null or not binary.
fn binary(column: &dyn Array, row: usize) -> Option<&[u8]> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Binary => Some(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => Some(column.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => Some(column.as_fixed_size_binary().value(row)),
        _ => None,
    }
}

/// The non-null texts of a text or list-of-text cell.
fn texts(column: &dyn Array, row: usize) -> Vec<&str> {
    if column.is_null(row) {
        return Vec::new();
    }
    let (items, range) = match column.data_type() {
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let offsets = list.value_offsets();
            (list.values(), offsets[row] as usize..offsets[row + 1] as usize)
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            let offsets = list.value_offsets();
            (list.values(), offsets[row] as usize..offsets[row + 1] as usize)
        }
        _ => return text(column, row).into_iter().collect(),
    };
    range.filter_map(|item| text(items, item)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{
        BinaryArray, BinaryViewArray, Int64Array, LargeBinaryArray, LargeStringArray, ListBuilder,
        StringArray, StringBuilder, StringViewArray,
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
