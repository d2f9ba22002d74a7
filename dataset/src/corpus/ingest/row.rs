//! A row on its way from a source to a file.

use bytes::Bytes;

/// Why a row cannot be used. The names are stable: reports and scripts may count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectReason {
    /// The source has no image for the row, or one of no bytes.
    NoImage,
    /// The source names an image that is not in the folder.
    MissingImage,
    /// The image is longer than `max_image_bytes`.
    TooManyBytes,
    /// The image has more than `max_pixels` pixels.
    TooManyPixels,
    /// The image's shorter side is below `min_side`.
    TooSmall,
    /// The image's bytes do not have the hash that the source records.
    WrongHash,
    /// The image does not decode.
    Undecodable,
    /// No caption with a visible character.
    NoCaption,
    /// No caption of at most [`MAX_CAPTION_BYTES`](super::MAX_CAPTION_BYTES).
    CaptionTooLong,
    /// The source says that the download failed.
    NotDownloaded,
    /// The row does not have the form of its kind.
    MalformedRow,
    /// The source is damaged from here on.
    DamagedSource,
}

impl RejectReason {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoImage => "no-picture",
            Self::MissingImage => "missing-picture",
            Self::TooManyBytes => "too-many-bytes",
            Self::TooManyPixels => "too-many-pixels",
            Self::TooSmall => "too-small",
            Self::WrongHash => "wrong-hash",
            Self::Undecodable => "undecodable",
            Self::NoCaption => "no-caption",
            Self::CaptionTooLong => "caption-too-long",
            Self::NotDownloaded => "not-downloaded",
            Self::MalformedRow => "malformed-row",
            Self::DamagedSource => "damaged-source",
        }
    }
}

/// A reason with what is known besides.
pub(super) type Refusal = (RejectReason, String);

/// The refusal of an image that is too long.
pub(super) fn too_many_bytes(bytes: u64, limit: u64) -> Refusal {
    (RejectReason::TooManyBytes, format!("{bytes} bytes are more than {limit}"))
}

/// Where a row's image is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RowImage {
    /// Here.
    Bytes(Bytes),
    /// In the folder, under the first of these names that exists.
    Named(Vec<String>),
}

/// A row as its source has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SourceRow {
    /// Index within its source.
    pub(super) row: u64,
    /// Name in reports.
    pub(super) key: String,
    pub(super) captions: Vec<String>,
    pub(super) url: Option<String>,
    pub(super) image: Result<RowImage, Refusal>,
}

/// A row that can be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReadyRow {
    pub(super) key: String,
    pub(super) captions: Vec<String>,
    pub(super) url: Option<String>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) sha256: String,
    pub(super) image: Bytes,
}

/// What became of a row.
#[derive(Debug)]
pub(super) enum Outcome {
    Ready(ReadyRow),
    Rejected { row: u64, key: String, reason: RejectReason, detail: String },
}
