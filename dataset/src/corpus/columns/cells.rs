//! Single cells of columns whose types were checked.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;

/// A text cell of any column; `None` if null or not text.
pub(crate) fn cell_text(column: &dyn Array, row: usize) -> Option<&str> {
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
pub(super) fn binary(column: &dyn Array, row: usize) -> Option<&[u8]> {
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
pub(crate) fn cell_texts(column: &dyn Array, row: usize) -> Vec<&str> {
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
        _ => return cell_text(column, row).into_iter().collect(),
    };
    range.filter_map(|item| cell_text(items, item)).collect()
}
