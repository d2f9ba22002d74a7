//! The hashes of row groups that a file's footer records: what is read is compared with them.
//!
//! A byte that changes on the way from the store, or on its disk, is silent in a Parquet page without a
//! checksum. Files written by ingestion record offset, length and BLAKE3 of every row group; of these no
//! changed byte is used.

use std::ops::Range;

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use serde::Deserialize;

/// Key of the footer's metadata under which the records are, as a JSON list in the order of the row groups.
pub(crate) const ROW_GROUPS: &str = "blip2.row_groups";

/// Bytes of a row group that is read as one.
const LONGEST: u64 = 2 << 30;

/// What a footer records of a row group; whatever else it records of it is not looked at here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RecordedRowGroup {
    /// First byte within the file.
    offset: u64,
    /// Length of all columns.
    bytes: u64,
    /// Hexadecimal.
    blake3: String,
}

impl RecordedRowGroup {
    /// The records of a file; none if it has none.
    ///
    /// # Errors
    /// In words, if there are some that do not belong to the file's row groups.
    pub(crate) fn of(footer: &ParquetMetaData, file_bytes: u64) -> Result<Vec<Self>, String> {
        let entries = footer.file_metadata().key_value_metadata().into_iter().flatten();
        let Some(text) =
            entries.filter(|entry| entry.key == ROW_GROUPS).find_map(|entry| entry.value.as_ref())
        else {
            return Ok(Vec::new());
        };
        let records: Vec<Self> =
            serde_json::from_str(text).map_err(|error| format!("`{ROW_GROUPS}` in its footer: {error}"))?;
        let inside = |record: &Self| {
            let end = record.offset.checked_add(record.bytes);
            record.bytes <= LONGEST && end.is_some_and(|end| end <= file_bytes)
        };
        if records.len() != footer.num_row_groups() || !records.iter().all(inside) {
            return Err(format!("`{ROW_GROUPS}` in its footer does not describe its row groups"));
        }
        Ok(records)
    }

    /// Where its bytes are.
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes
    }

    /// Whether these are its bytes.
    pub(crate) fn is_of(&self, content: &[u8]) -> bool {
        blake3::hash(content).to_hex().as_str() == self.blake3
    }

    /// A range of the file out of the row group's bytes; `None` if it is outside.
    pub(crate) fn slice(&self, content: &Bytes, range: &Range<u64>) -> Option<Bytes> {
        let start = usize::try_from(range.start.checked_sub(self.offset)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.offset)?).ok()?;
        (start <= end && end <= content.len()).then(|| content.slice(start..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_out_of_their_row_group_only() {
        let content = Bytes::from_static(b"0123456789");
        let record =
            RecordedRowGroup { offset: 100, bytes: 10, blake3: blake3::hash(&content).to_hex().to_string() };
        assert!(record.is_of(&content) && !record.is_of(b"012345678"));
        assert_eq!(record.slice(&content, &(102..105)).unwrap(), Bytes::from_static(b"234"));
        for outside in [99..105, 105..111, 200..201, Range { start: 105, end: 104 }] {
            assert!(record.slice(&content, &outside).is_none(), "{outside:?}");
        }
    }
}
