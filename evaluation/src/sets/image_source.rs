//! Where an image is, and how it is read.

use std::sync::Arc;

use blip2_dataset::corpus::columns::RowGroup;
use blip2_dataset::corpus::parquet_file::ParquetFile;
use blip2_images::decode::decode_image;
use blip2_store::Location;
use image::RgbImage;

use crate::job_error::{JobError, Result};

/// Where an image is.
#[derive(Debug, Clone)]
pub(super) enum ImageSource {
    /// An object of its own.
    File(Location),
    /// A row of a Parquet file.
    Row {
        /// Which of the set's files.
        file: usize,
        /// Its row group.
        row_group: u32,
        /// The row within it.
        row: usize,
    },
}

impl PartialEq for ImageSource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one.path() == other.path(),
            (
                Self::Row { file, row_group, row },
                Self::Row { file: other_file, row_group: other_group, row: other_row },
            ) => (file, row_group, row) == (other_file, other_group, other_row),
            _ => false,
        }
    }
}

/// Reads images; the row group that was read last is kept.
#[derive(Debug)]
pub(super) struct ImageReader {
    files: Vec<Arc<ParquetFile>>,
    max_pixels: u64,
    last: Option<((usize, u32), RowGroup)>,
}

impl ImageReader {
    pub(super) fn new(files: Vec<Arc<ParquetFile>>, max_pixels: u64) -> Self {
        Self { files, max_pixels, last: None }
    }

    pub(super) async fn read(&mut self, name: &str, source: &ImageSource) -> Result<RgbImage> {
        let max_pixels = self.max_pixels;
        let wrong = |reason: String| JobError::Image { name: name.to_owned(), reason };
        let decoded = match source {
            ImageSource::File(location) => {
                let bytes =
                    location.read().await?.ok_or_else(|| wrong(format!("{location} is not there")))?;
                decode_image(&bytes, max_pixels)
            }
            ImageSource::Row { file, row_group, row } => {
                let group = self.row_group(*file, *row_group).await?;
                decode_image(group.image(*row).map_err(wrong)?, max_pixels)
            }
        };
        decoded.map_err(|error| wrong(error.to_string()))
    }

    async fn row_group(&mut self, file: usize, row_group: u32) -> Result<&RowGroup> {
        let kept = self.last.take().filter(|(place, _)| *place == (file, row_group));
        let read = match kept {
            Some(kept) => kept,
            None => ((file, row_group), self.files[file].fetch(row_group).await?.decode()?),
        };
        Ok(&self.last.insert(read).1)
    }
}
