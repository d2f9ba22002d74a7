//! A manifest as a Parquet file, one row a file.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListBuilder, RecordBatch, StringArray, UInt32Array,
    UInt32Builder, UInt64Array,
};
use arrow::datatypes::{Float64Type, UInt32Type, UInt64Type};
use bytes::Bytes;

use super::files::{Manifest, ManifestFile};
use super::source::ManifestSource;
use crate::error::{DatasetError, Result};
use crate::parquet_bytes::{read_parquet, write_parquet};

impl Manifest {
    /// The manifest as a Parquet file: one row a file, and with it the number, name and weight of its source
    /// where there are several or one with a name.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the writer fails.
    pub fn to_parquet(&self) -> Result<Bytes> {
        let mut row_groups = ListBuilder::new(UInt32Builder::new());
        for file in &self.files {
            row_groups.append_value(file.row_groups.iter().map(|rows| Some(*rows)));
        }
        let text = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let lengths = UInt64Array::from_iter_values(self.files.iter().map(|file| file.bytes));
        let mut columns = vec![
            ("location", text(self.files.iter().map(|file| Some(file.location.as_str())).collect())),
            ("bytes", Arc::new(lengths) as ArrayRef),
            ("etag", text(self.files.iter().map(|file| file.etag.as_deref()).collect())),
            ("row_groups", Arc::new(row_groups.finish()) as ArrayRef),
        ];
        if !self.sources.is_empty() {
            let of_files = || {
                let numbered = (0u32..).zip(&self.sources);
                numbered.flat_map(|source| std::iter::repeat_n(source, source.1.files as usize))
            };
            let numbers = UInt32Array::from_iter_values(of_files().map(|(number, _)| number));
            let weights = Float64Array::from_iter(of_files().map(|(_, source)| source.weight));
            columns.push(("source_number", Arc::new(numbers) as ArrayRef));
            columns
                .push(("source", text(of_files().map(|(_, source)| Some(source.name.as_str())).collect())));
            columns.push(("weight", Arc::new(weights) as ArrayRef));
        }
        if self.files.iter().any(|file| !file.failed.is_empty()) {
            let mut failed = ListBuilder::new(UInt32Builder::new());
            for file in &self.files {
                failed.append_value(file.failed.iter().map(|rows| Some(*rows)));
            }
            columns.push(("failed", Arc::new(failed.finish()) as ArrayRef));
        }
        let batch = RecordBatch::try_from_iter(columns);
        batch.map_err(malformed).and_then(|batch| write_parquet(&batch).map_err(malformed))
    }

    /// Reads what [`Manifest::to_parquet`] wrote.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`].
    pub fn from_parquet(content: Bytes) -> Result<Self> {
        let mut manifest = Self::default();
        for batch in read_parquet(content).map_err(malformed)? {
            let unexpected = || malformed("unexpected columns");
            manifest.files.extend(files_of(&batch).ok_or_else(unexpected)?);
            if batch.column_by_name("source_number").is_some() {
                add_sources(&batch, &mut manifest.sources).ok_or_else(unexpected)?;
            }
        }
        Ok(manifest)
    }
}

/// The files of one batch of the manifest's Parquet form; `None` if its columns are not the manifest's.
fn files_of(batch: &RecordBatch) -> Option<Vec<ManifestFile>> {
    let locations = batch.column_by_name("location")?.as_string_opt::<i32>()?;
    let bytes = batch.column_by_name("bytes")?.as_primitive_opt::<UInt64Type>()?;
    let etags = batch.column_by_name("etag")?.as_string_opt::<i32>()?;
    let row_groups = batch.column_by_name("row_groups")?.as_list_opt::<i32>()?;
    let failed = match batch.column_by_name("failed") {
        Some(column) => Some(column.as_list_opt::<i32>()?),
        None => None,
    };
    let file = |row: usize| {
        let groups = row_groups.value(row);
        let failed = match failed {
            Some(failed) => failed.value(row).as_primitive_opt::<UInt32Type>()?.values().to_vec(),
            None => Vec::new(),
        };
        Some(ManifestFile {
            location: locations.value(row).to_owned(),
            bytes: bytes.value(row),
            etag: etags.is_valid(row).then(|| etags.value(row).to_owned()),
            row_groups: groups.as_primitive_opt::<UInt32Type>()?.values().to_vec(),
            failed,
        })
    };
    (0..batch.num_rows()).map(file).collect()
}

/// Counts the files of one batch to their sources, which come one after the other; `None` if they do not.
fn add_sources(batch: &RecordBatch, sources: &mut Vec<ManifestSource>) -> Option<()> {
    let numbers = batch.column_by_name("source_number")?.as_primitive_opt::<UInt32Type>()?;
    let names = batch.column_by_name("source")?.as_string_opt::<i32>()?;
    let weights = batch.column_by_name("weight")?.as_primitive_opt::<Float64Type>()?;
    for row in 0..batch.num_rows() {
        let number = numbers.value(row) as usize;
        if number == sources.len() {
            let weight = weights.is_valid(row).then(|| weights.value(row));
            sources.push(ManifestSource { name: names.value(row).to_owned(), weight, files: 0 });
        }
        let last = sources.len().checked_sub(1).filter(|last| *last == number)?;
        sources[last].files += 1;
    }
    Some(())
}

fn malformed(reason: impl std::fmt::Display) -> DatasetError {
    DatasetError::Malformed { what: "manifest", reason: reason.to_string() }
}
