//! Rows of a unit into files of a given length and number of row groups.

use std::mem;

use bytes::Bytes;

use crate::corpus::ingest::layout::{batch, schema};
use crate::corpus::ingest::row::ReadyRow;
use crate::corpus::ingest::settings::IngestSettings;
use crate::corpus::row_group_file::{Contents, RowGroupFile};
use crate::error::Result;

/// Bytes of a row besides image and text.
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
    open: Option<RowGroupFile>,
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
        self.bytes += (row.image.len() + text) as u64 + ROW_OVERHEAD;
        self.rows.push(row);
        if self.bytes < self.row_group_bytes {
            return Ok(None);
        }
        self.write_row_group()?;
        match self.open.as_ref().is_some_and(|open| open.row_groups() >= self.row_groups) {
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
            closed => closed.insert(RowGroupFile::new(schema())?),
        };
        let sides = || rows.iter().flat_map(|row| [row.width, row.height]);
        open.push(
            &batch(&rows)?,
            Contents {
                captions: rows.iter().map(|row| row.captions.len() as u64).sum(),
                image_bytes: rows.iter().map(|row| row.image.len() as u64).sum(),
                pixels: rows.iter().map(|row| u64::from(row.width) * u64::from(row.height)).sum(),
                min_side: sides().min().unwrap_or_default(),
                max_side: sides().max().unwrap_or_default(),
            },
        )
    }

    fn close(&mut self) -> Result<Option<PartFile>> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let rows = open.rows();
        let content = open.finish()?;
        let name = format!("part-{:06}-{:04}.parquet", self.unit, self.files);
        self.files += 1;
        Ok(Some(PartFile { name, content, rows }))
    }
}
