//! The kinds of sources.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::corpus::archive_name::ARCHIVE_ENDINGS;

/// What sources are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Parquet files with images, as img2dataset writes them.
    Img2dataset,
    /// Tar archives: `KEY.jpg`, `KEY.txt`, `KEY.json`.
    Webdataset,
    /// COCO captions: the official JSON, Karpathy's, or a list of `{image, caption}`; and a folder.
    Coco,
    /// Visual Genome: `region_descriptions.json` or a list of `{image, caption}`; and a folder.
    VisualGenome,
    /// Conceptual Captions 3M: lines of caption, tab, URL; and a folder.
    Cc3m,
    /// Conceptual Captions 12M: lines of URL, tab, caption; and a folder.
    Cc12m,
    /// SBU captions: JSON of `image_urls` and `captions`, or a list; and a folder.
    Sbu,
    /// LAION: Parquet of `URL` and `TEXT`; and a folder.
    Laion,
    /// A folder of images with `.txt`, `.caption` or `.json` beside them.
    Folder,
    /// Comma-separated values with a header: an image's path and a caption.
    Csv,
    /// The same, with tabs.
    Tsv,
    /// A JSON object on each line.
    Jsonl,
}

/// Where the images of a kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImagePlace {
    /// In the sources.
    Inside,
    /// In a folder that has to be named.
    Named,
    /// In a folder that is named, or in the one where the list is.
    Beside,
}

/// Endings of images, by preference.
pub(super) const IMAGE_ENDINGS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

impl SourceKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Img2dataset,
        Self::Webdataset,
        Self::Coco,
        Self::VisualGenome,
        Self::Cc3m,
        Self::Cc12m,
        Self::Sbu,
        Self::Laion,
        Self::Folder,
        Self::Csv,
        Self::Tsv,
        Self::Jsonl,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Img2dataset => "img2dataset",
            Self::Webdataset => "webdataset",
            Self::Coco => "coco",
            Self::VisualGenome => "visual-genome",
            Self::Cc3m => "cc3m",
            Self::Cc12m => "cc12m",
            Self::Sbu => "sbu",
            Self::Laion => "laion",
            Self::Folder => "folder",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Jsonl => "jsonl",
        }
    }

    /// Endings of the sources that a folder stands for.
    pub(super) fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Img2dataset | Self::Laion => &["parquet"],
            Self::Webdataset => &ARCHIVE_ENDINGS,
            Self::Coco | Self::VisualGenome | Self::Sbu => &["json"],
            Self::Cc3m | Self::Cc12m => &["tsv", "txt"],
            Self::Csv => &["csv"],
            Self::Tsv => &["tsv"],
            Self::Jsonl => &["jsonl", "ndjson"],
            Self::Folder => &[],
        }
    }

    /// Where the images are.
    pub(super) fn image_place(self) -> ImagePlace {
        match self {
            Self::Img2dataset | Self::Webdataset | Self::Folder => ImagePlace::Inside,
            Self::Csv | Self::Tsv | Self::Jsonl => ImagePlace::Beside,
            _ => ImagePlace::Named,
        }
    }

    /// Whether its sources only name their images, so that their folder has to be named.
    pub fn names_images(self) -> bool {
        self.image_place() == ImagePlace::Named
    }

    /// Whether its sources are lists that are held in memory.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Coco | Self::VisualGenome | Self::Sbu | Self::Csv | Self::Tsv | Self::Jsonl)
    }

    /// How a row's image is called in the folder; `None` where the source says so itself.
    pub fn default_image_name(self) -> Option<&'static str> {
        match self {
            Self::Cc3m | Self::Cc12m | Self::Laion => Some("{shard}/{key}.jpg"),
            Self::Sbu => Some("{url_file}"),
            _ => None,
        }
    }

    /// Captions kept of a row: of web archives' ranked lists the reference uses the first two.
    pub fn default_max_captions(self) -> usize {
        if self == Self::Webdataset { 2 } else { 1000 }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SourceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Files of Hugging Face `datasets` are Parquet with images, too.
        let text = if matches!(text, "parquet" | "huggingface") { "img2dataset" } else { text };
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("one of {}", names.join(", "))
        })
    }
}
