//! Rows of a unit into files of a given length and number of row groups.

use std::mem;

use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;

use crate::error::{DatasetError, Result};
use crate::ingest::IngestSettings;
use crate::ingest::layout::{IngestedRowGroup, batch, properties, schema};
use crate::ingest::row::ReadyRow;
use crate::row_group_hash::ROW_GROUPS;

/// Bytes of a row besides picture and text.
const ROW_OVERHEAD: u64 = 128;

/// A file to store.
#[derive(Debug)]
pub(super) struct PartFile {
    pub(super) name: String,
    pub(super) content: Bytes,
    pub(super) rows: u64,
}

/// Collects rows; holds one row group of them and one encoded file.
pub(super) struct PartWriter {
    unit: u64,
    row_group_bytes: u64,
    row_groups: usize,
    files: u64,
    rows: Vec<ReadyRow>,
    bytes: u64,
    open: Option<OpenFile>,
}

struct OpenFile {
    writer: ArrowWriter<Vec<u8>>,
    groups: Vec<IngestedRowGroup>,
}

impl PartWriter {
    pub(super) fn new(unit: u64, settings: &IngestSettings) -> Self {
        Self {
            unit,
            row_group_bytes: settings.file_bytes / u64::from(settings.row_groups),
            row_groups: settings.row_groups as usize,
            files: 0,
            rows: Vec::new(),
            bytes: 0,
            open: None,
        }
    }

    /// Adds a row; returns the file that it completes.
    pub(super) fn push(&mut self, row: ReadyRow) -> Result<Option<PartFile>> {
        let text: usize = row.captions.iter().map(String::len).sum();
        self.bytes += (row.picture.len() + text) as u64 + ROW_OVERHEAD;
        self.rows.push(row);
        if self.bytes < self.row_group_bytes {
            return Ok(None);
        }
        self.write_row_group()?;
        match self.open.as_ref().is_some_and(|open| open.groups.len() >= self.row_groups) {
            true => self.close(),
            false => Ok(None),
        }
    }

    /// The last file, if there are rows left.
    pub(super) fn finish(mut self) -> Result<Option<PartFile>> {
        if !self.rows.is_empty() {
            self.write_row_group()?;
        }
        self.close()
    }

    fn write_row_group(&mut self) -> Result<()> {
        let rows = mem::take(&mut self.rows);
        self.bytes = 0;
        let open = match &mut self.open {
            Some(open) => open,
            closed => {
                let writer =
                    ArrowWriter::try_new(Vec::new(), schema(), Some(properties())).map_err(failed)?;
                closed.insert(OpenFile { writer, groups: Vec::new() })
            }
        };
        let start = flushed(&mut open.writer)?;
        open.writer.write(&batch(&rows)?).map_err(failed)?;
        open.writer.flush().map_err(failed)?;
        let end = flushed(&mut open.writer)?;
        let hash = blake3::hash(&open.writer.inner()[start..end]);
        let sides = || rows.iter().flat_map(|row| [row.width, row.height]);
        open.groups.push(IngestedRowGroup {
            offset: start as u64,
            bytes: (end - start) as u64,
            blake3: hash.to_hex().to_string(),
            rows: rows.len() as u64,
            captions: rows.iter().map(|row| row.captions.len() as u64).sum(),
            picture_bytes: rows.iter().map(|row| row.picture.len() as u64).sum(),
            pixels: rows.iter().map(|row| u64::from(row.width) * u64::from(row.height)).sum(),
            min_side: sides().min().unwrap_or_default(),
            max_side: sides().max().unwrap_or_default(),
        });
        Ok(())
    }

    fn close(&mut self) -> Result<Option<PartFile>> {
        let Some(OpenFile { mut writer, groups }) = self.open.take() else { return Ok(None) };
        let record = serde_json::to_string(&groups)
            .map_err(|error| DatasetError::Malformed { what: "row group", reason: error.to_string() })?;
        writer.append_key_value_metadata(KeyValue::new(ROW_GROUPS.to_owned(), record));
        let content = writer.into_inner().map_err(failed)?.into();
        let name = format!("part-{:06}-{:04}.parquet", self.unit, self.files);
        self.files += 1;
        Ok(Some(PartFile { name, content, rows: groups.iter().map(|group| group.rows).sum() }))
    }
}

/// Bytes of the file so far, all of them in the writer's buffer.
fn flushed(writer: &mut ArrowWriter<Vec<u8>>) -> Result<usize> {
    writer.sync().map_err(|error| failed(error.into()))?;
    Ok(writer.inner().len())
}

fn failed(error: ParquetError) -> DatasetError {
    DatasetError::Malformed { what: "file that is written", reason: error.to_string() }
}
