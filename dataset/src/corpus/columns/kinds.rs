//! Which types of columns can be read as what, and how each is brought to a plain form.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, FieldRef, Fields};

use super::cells::cell_text;

/// The field of a structure that is an image.
const IMAGE_BYTES: &str = "bytes";
/// The fields of a structure that may be a caption, by preference.
const CAPTION_TEXTS: [&str; 3] = ["text", "raw", "caption"];
/// The field of a structure that is an answer.
const ANSWER_TEXTS: [&str; 1] = ["answer"];
/// The field that says why a caption of a structure is not used; one that is null, or not there, is used.
const CAPTION_DROPPED: &str = "dropped";

/// Nothing but nulls, as writers give a column without a single value.
pub(super) fn is_nothing(kind: &DataType) -> bool {
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
pub(super) fn is_caption(kind: &DataType) -> bool {
    is_text(kind) || is_text_list(kind) || is_structure_list(kind) || is_text_structure(kind)
}

/// What answers can be read from.
pub(super) fn is_answer(kind: &DataType) -> bool {
    let listed = |fields: &Fields| text_field(fields, &ANSWER_TEXTS).is_some();
    let is_list = matches!(kind, DataType::List(item) if matches!(item.data_type(), DataType::Struct(fields) if listed(fields)));
    is_text(kind) || is_text_list(kind) || is_list
}

pub(super) fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

pub(super) fn is_binary(kind: &DataType) -> bool {
    match kind {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            true
        }
        DataType::Dictionary(_, values) => is_binary(values),
        _ => false,
    }
}

/// Binary, or a structure with binary `bytes`, as Hugging Face `datasets` stores images.
pub(super) fn is_image(kind: &DataType) -> bool {
    match kind {
        DataType::Struct(fields) => {
            fields.iter().any(|field| field.name() == IMAGE_BYTES && is_binary(field.data_type()))
        }
        other => is_binary(other),
    }
}

/// The cells themselves: of a structure its bytes, of a dictionary its values.
pub(crate) fn plain(column: &ArrayRef) -> ArrayRef {
    let inner = match column.data_type() {
        DataType::Struct(_) => column.as_struct().column_by_name(IMAGE_BYTES).unwrap_or(column),
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
    text_field(fields, &CAPTION_TEXTS)
}

/// The first field of these names that is text.
fn text_field<'a>(fields: &'a Fields, names: &[&str]) -> Option<&'a FieldRef> {
    let is_plain = |field: &&FieldRef| {
        !matches!(field.data_type(), DataType::Dictionary(..)) && is_text(field.data_type())
    };
    let named = |name: &&str| fields.iter().find(|field| field.name() == *name).filter(is_plain);
    names.iter().find_map(named)
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
        kind if is_structure_list(kind) => listed_texts(column, &CAPTION_TEXTS),
        _ => plain(column),
    }
}

/// Answers as text or lists of text: of structures their answers.
pub(super) fn answer_texts(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::List(item) if matches!(item.data_type(), DataType::Struct(_)) => {
            listed_texts(column, &ANSWER_TEXTS)
        }
        _ => plain(column),
    }
}

/// The texts of a list of structures, which are in the first field of these names.
fn listed_texts(column: &ArrayRef, names: &[&str]) -> ArrayRef {
    let list = column.as_list::<i32>();
    let structures = list.values().as_struct();
    let text = text_field(structures.fields(), names);
    let text = text.and_then(|field| structures.column_by_name(field.name()));
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
