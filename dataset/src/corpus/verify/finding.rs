//! What can be wrong with a corpus.

use serde::Serialize;

/// What was found. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The ingestion is not complete.
    Incomplete,
    /// A file that the ingestion wrote is not there.
    MissingFile,
    /// A file is not the one that the ingestion wrote.
    ChangedFile,
    /// A file that the ingestion did not write.
    ForeignFile,
    /// No Parquet, or a damaged or unusable footer.
    NotParquet,
    /// A needed column is missing.
    MissingColumn,
    /// Two columns have one name.
    RepeatedColumn,
    /// A column has a type that cannot be used.
    ColumnType,
    /// A row group cannot be read or does not have its recorded hash.
    DamagedRowGroup,
    /// A row group's recorded numbers are not those of its rows.
    WrongStatistics,
    /// A row has no image.
    #[serde(rename = "no-picture")]
    NoImage,
    /// An image does not have its recorded hash.
    WrongHash,
    /// An image does not decode or is too large.
    Undecodable,
    /// A row has no caption with a visible character.
    NoCaption,
    /// A caption is longer than what is read of it.
    CaptionTooLong,
    /// A caption has control characters.
    ControlCharacters,
}

impl FindingKind {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::MissingFile => "missing-file",
            Self::ChangedFile => "changed-file",
            Self::ForeignFile => "foreign-file",
            Self::NotParquet => "not-parquet",
            Self::MissingColumn => "missing-column",
            Self::RepeatedColumn => "repeated-column",
            Self::ColumnType => "column-type",
            Self::DamagedRowGroup => "damaged-row-group",
            Self::WrongStatistics => "wrong-statistics",
            Self::NoImage => "no-picture",
            Self::WrongHash => "wrong-hash",
            Self::Undecodable => "undecodable",
            Self::NoCaption => "no-caption",
            Self::CaptionTooLong => "caption-too-long",
            Self::ControlCharacters => "control-characters",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The file.
    pub file: String,
    /// The row group, where it is about one.
    pub row_group: Option<u32>,
    /// The row within the row group, where it is about one.
    pub row: Option<u32>,
    /// The row's key.
    pub key: Option<String>,
    /// What is known besides.
    pub detail: String,
}

impl Finding {
    /// About a file as a whole.
    pub(super) fn of_file(kind: FindingKind, file: &str, detail: impl Into<String>) -> Self {
        Self { kind, file: file.to_owned(), row_group: None, row: None, key: None, detail: detail.into() }
    }
}
