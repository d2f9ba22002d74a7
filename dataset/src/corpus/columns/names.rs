//! What the columns are to be called, and whose SHA-256 one of them holds.

use serde::{Deserialize, Serialize};

/// Whose SHA-256 a file records beside its images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashOf {
    /// Found from the first rows of each row group: where hardly any hash is that of the stored bytes, none
    /// is compared.
    #[default]
    Auto,
    /// Of the stored bytes: a row with another is not used.
    Stored,
    /// Of what was downloaded, before it was resized and encoded anew, as img2dataset records it: not
    /// compared.
    Download,
}

/// Names of the columns, as img2dataset writes them by default.
///
/// `image` and one of `caption` and `captions` are needed; the others are used when a file has them. An empty
/// name switches an optional column off. Where a name is the default and a file has no such column, the names
/// that the published data sets use are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnNames {
    /// Encoded image; if absent, the first of `jpg`, `png`, `webp`, `image`, `jpeg`, `img`, `picture` that
    /// exists.
    pub image: String,
    /// One caption (text), or several (list of text); if both this and `captions` are absent and neither was
    /// named otherwise, the first of `TEXT`, `alt_text`, `top_caption`, `re_caption` and their like that
    /// exists.
    pub caption: String,
    /// Several captions, of which one is drawn per step; preferred to `caption`. A list of text, or of
    /// structures as curation writes them: their `text`, where `dropped` is null or not there.
    pub captions: String,
    /// Name of the row in reports.
    pub key: String,
    /// Rows with another value than `success` are not used.
    pub status: String,
    /// SHA-256 of the image's bytes, as hexadecimal text or 32 bytes.
    pub sha256: String,
    /// Whose SHA-256 that is.
    pub sha256_of: HashOf,
    /// Source of the image.
    pub url: String,
}

impl Default for ColumnNames {
    fn default() -> Self {
        Self {
            image: "jpg".into(),
            caption: "caption".into(),
            captions: "captions".into(),
            key: "key".into(),
            status: "status".into(),
            sha256: "sha256".into(),
            sha256_of: HashOf::Auto,
            url: "url".into(),
        }
    }
}
