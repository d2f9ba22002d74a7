//! Rows that could not be used: where they are and why.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{UInt32Type, UInt64Type};
use bytes::Bytes;

use crate::error::{DatasetError, Result};
use crate::parquet_bytes::{read_parquet, write_parquet};

/// A row that was not used, and the sample in whose place a substitute was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRecord {
    /// The row's key; empty if the file has none.
    pub key: String,
    /// Location of the file.
    pub file: String,
    /// Row group within the file.
    pub row_group: u32,
    /// Row within the row group.
    pub row: u32,
    /// Why the row was not used.
    pub reason: String,
    /// Global index of the sample that met the row.
    pub sample: u64,
    /// Stage of that sample.
    pub stage: u32,
}

impl QuarantineRecord {
    fn place(&self) -> (u32, u64, &str, u32, u32) {
        (self.stage, self.sample, &self.file, self.row_group, self.row)
    }
}

/// Ordered by stage, sample and row; the other fields only break ties.
impl Ord for QuarantineRecord {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place()
            .cmp(&other.place())
            .then_with(|| (&self.key, &self.reason).cmp(&(&other.key, &other.reason)))
    }
}

impl PartialOrd for QuarantineRecord {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Quarantined rows in a fixed order. A record of the same stage, sample and row counts once, so that a step
/// that is redone changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineList {
    records: BTreeSet<QuarantineRecord>,
}

impl QuarantineList {
    /// Adds a record; `false` if one of its stage, sample and row is there already.
    pub fn insert(&mut self, record: QuarantineRecord) -> bool {
        let lowest = QuarantineRecord { key: String::new(), reason: String::new(), ..record.clone() };
        let known = self.records.range(lowest..).next().is_some_and(|found| found.place() == record.place());
        !known && self.records.insert(record)
    }

    /// Records, by stage, sample and row.
    pub fn iter(&self) -> impl Iterator<Item = &QuarantineRecord> {
        self.records.iter()
    }

    /// The records of the latest samples, at most so many, newest first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &QuarantineRecord> {
        self.records.iter().rev().take(count)
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is quarantined.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The list as a Parquet file.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the writer fails.
    pub fn to_parquet(&self) -> Result<Bytes> {
        let text = |field: fn(&QuarantineRecord) -> &String| {
            Arc::new(StringArray::from_iter_values(self.records.iter().map(field))) as ArrayRef
        };
        let small = |field: fn(&QuarantineRecord) -> u32| {
            Arc::new(UInt32Array::from_iter_values(self.records.iter().map(field))) as ArrayRef
        };
        let samples = UInt64Array::from_iter_values(self.records.iter().map(|record| record.sample));
        let batch = RecordBatch::try_from_iter([
            ("key", text(|record| &record.key)),
            ("file", text(|record| &record.file)),
            ("row_group", small(|record| record.row_group)),
            ("row", small(|record| record.row)),
            ("reason", text(|record| &record.reason)),
            ("sample", Arc::new(samples) as ArrayRef),
            ("stage", small(|record| record.stage)),
        ]);
        batch.map_err(malformed).and_then(|batch| write_parquet(&batch).map_err(malformed))
    }

    /// Reads what [`QuarantineList::to_parquet`] wrote.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`].
    pub fn from_parquet(content: Bytes) -> Result<Self> {
        let mut list = Self::default();
        for batch in read_parquet(content).map_err(malformed)? {
            list.extend(records_of(&batch).ok_or_else(|| malformed("unexpected columns"))?);
        }
        Ok(list)
    }
}

impl Extend<QuarantineRecord> for QuarantineList {
    fn extend<T: IntoIterator<Item = QuarantineRecord>>(&mut self, records: T) {
        for record in records {
            self.insert(record);
        }
    }
}

impl FromIterator<QuarantineRecord> for QuarantineList {
    fn from_iter<T: IntoIterator<Item = QuarantineRecord>>(records: T) -> Self {
        let mut list = Self::default();
        list.extend(records);
        list
    }
}

fn records_of(batch: &RecordBatch) -> Option<Vec<QuarantineRecord>> {
    let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
    let small = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>();
    let samples = batch.column_by_name("sample")?.as_primitive_opt::<UInt64Type>()?;
    let (keys, files, reasons) = (text("key")?, text("file")?, text("reason")?);
    let (row_groups, rows, stages) = (small("row_group")?, small("row")?, small("stage")?);
    let record = |row: usize| QuarantineRecord {
        key: keys.value(row).to_owned(),
        file: files.value(row).to_owned(),
        row_group: row_groups.value(row),
        row: rows.value(row),
        reason: reasons.value(row).to_owned(),
        sample: samples.value(row),
        stage: stages.value(row),
    };
    Some((0..batch.num_rows()).map(record).collect())
}

fn malformed(reason: impl std::fmt::Display) -> DatasetError {
    DatasetError::Malformed { what: "quarantine list", reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sample: u64, row: u32, reason: &str) -> QuarantineRecord {
        QuarantineRecord {
            key: format!("k{row}"),
            file: "/c/a.parquet".into(),
            row_group: 1,
            row,
            reason: reason.into(),
            sample,
            stage: 1,
        }
    }

    #[test]
    fn one_record_for_each_stage_sample_and_row() {
        let mut list = QuarantineList::default();
        assert!(list.insert(record(7, 3, "first")));
        assert!(!list.insert(record(7, 3, "again, otherwise")));
        assert!(!list.insert(record(7, 3, "a smaller reason")));
        assert!(list.insert(record(7, 4, "x")));
        assert!(list.insert(QuarantineRecord { stage: 2, ..record(7, 3, "x") }));
        assert!(list.insert(record(2, 3, "x")));
        let order: Vec<_> = list.iter().map(|record| (record.stage, record.sample, record.row)).collect();
        assert_eq!(order, [(1, 2, 3), (1, 7, 3), (1, 7, 4), (2, 7, 3)]);
    }

    #[test]
    fn parquet_form_round_trips() {
        let list: QuarantineList =
            [record(1, 2, "no text"), record(0, 9, "it is truncated")].into_iter().collect();
        let again = QuarantineList::from_parquet(list.to_parquet().unwrap()).unwrap();
        assert_eq!(again, list);
        let empty = QuarantineList::default();
        assert_eq!(QuarantineList::from_parquet(empty.to_parquet().unwrap()).unwrap(), empty);
        assert!(QuarantineList::from_parquet(Bytes::from_static(b"?")).is_err());
    }
}
