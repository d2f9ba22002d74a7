//! What to ingest and how, and which part of it.

use serde::{Deserialize, Serialize};

use super::kind::{ImagePlace, SourceKind};
use crate::corpus::columns::ColumnNames;
use crate::error::{DatasetError, Result};

/// What to ingest and how. All but `threads` and `columns` decides the bytes that are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngestSettings {
    /// What the sources are.
    pub kind: SourceKind,
    /// Folder or prefix of the images, for the kinds whose sources only name them.
    pub images: Option<String>,
    /// How an image is named below `images`; `None` is the kind's own. See
    /// [`SourceKind::default_image_name`].
    pub image_name: Option<String>,
    /// Splits that are used, of lists that have some.
    pub splits: Vec<String>,
    /// Names of the columns of Parquet sources.
    pub columns: ColumnNames,
    /// Images whose shorter side is longer are made smaller and encoded as JPEG.
    pub short_side: Option<u32>,
    /// Encode every image as JPEG of this quality, 1 to 100.
    pub jpeg_quality: Option<u8>,
    /// Images whose shorter side is shorter are not used.
    pub min_side: u32,
    /// Images of more pixels are not used.
    pub max_pixels: u64,
    /// Images of more bytes are not used.
    #[serde(rename = "max_picture_bytes")]
    pub max_image_bytes: u64,
    /// Captions of a row that are kept, the first ones.
    pub max_captions: usize,
    /// Length of a file, bytes of images and text.
    pub file_bytes: u64,
    /// Row groups of a file.
    pub row_groups: u32,
    /// Rows of a unit, for sources that are lists.
    pub unit_rows: u64,
    /// Decode threads.
    #[serde(skip, default = "one_thread")]
    pub threads: usize,
}

fn one_thread() -> usize {
    1
}

impl IngestSettings {
    /// The defaults for a kind: files of 64 MiB in 8 row groups, images as they are.
    pub fn new(kind: SourceKind) -> Self {
        Self {
            kind,
            images: None,
            image_name: None,
            splits: ["train", "restval"].map(str::to_owned).into(),
            columns: ColumnNames::default(),
            short_side: None,
            jpeg_quality: None,
            min_side: 1,
            max_pixels: 200_000_000,
            max_image_bytes: 32 << 20,
            max_captions: kind.default_max_captions(),
            file_bytes: 64 << 20,
            row_groups: 8,
            unit_rows: 10_000,
            threads: 1,
        }
    }

    /// Refuses numbers that no job can have, and folders that the kind has no use for.
    pub(super) fn validate(&self) -> Result<()> {
        let bad = |text: &str| Err(DatasetError::Setting(text.to_owned()));
        if self.row_groups == 0 || self.row_groups > 4096 {
            return bad("row groups of a file: between 1 and 4096");
        }
        // A column of a row group is addressed by 32-bit offsets.
        if !(1 << 10..=8 << 30).contains(&self.file_bytes)
            || self.file_bytes / u64::from(self.row_groups) > 1 << 30
        {
            return bad("length of a file: between 1 KiB and 8 GiB, and at most 1 GiB a row group");
        }
        if self.unit_rows == 0 || self.max_captions == 0 || self.threads == 0 {
            return bad("rows of a unit, captions of a row and threads: at least 1");
        }
        if self.jpeg_quality.is_some_and(|quality| !(1..=100).contains(&quality)) {
            return bad("JPEG quality: between 1 and 100");
        }
        if self.short_side == Some(0) {
            return bad("short side: at least 1 pixel");
        }
        if self.max_image_bytes == 0 || self.max_image_bytes > 1 << 30 {
            return bad("bytes of a picture: between 1 and 1 GiB");
        }
        match (self.kind.image_place(), &self.images) {
            (ImagePlace::Named, None) => Err(DatasetError::Setting(format!(
                "sources of kind {} only name their pictures; say where these lie (--images FOLDER)",
                self.kind
            ))),
            (ImagePlace::Inside, Some(_)) => Err(DatasetError::Setting(format!(
                "sources of kind {} hold their pictures; --images is for the other kinds",
                self.kind
            ))),
            _ => Ok(()),
        }
    }
}

/// The units of one of several machines: those whose number is `index` modulo `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: u64,
    /// Machines.
    pub count: u64,
}

impl Share {
    /// All units.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}
