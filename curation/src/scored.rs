//! Texts about an image, with what the models think of them.

pub(crate) mod file;

use serde::{Deserialize, Serialize};

/// Where a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextSource {
    /// It came with the image.
    Web,
    /// A captioner wrote it.
    Synthetic,
}

impl TextSource {
    /// As files and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Synthetic => "synthetic",
        }
    }
}

/// A text and its scores.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredText {
    /// As it was found or written: rules look at its punctuation; models and training clean it when they read
    /// it.
    pub text: String,
    /// Where it comes from.
    pub source: TextSource,
    /// Cosine of CLIP's vectors of image and text, -1 to 1.
    pub clip_score: Option<f32>,
    /// Probability that image and text match, of the ITM head, 0 to 1.
    pub itm_score: Option<f32>,
}

/// A row of the input that can be used, with all its texts in the order they were written: those of the web
/// first.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredRow {
    /// Row group of its file.
    pub row_group: u32,
    /// Row within the row group.
    pub row: u32,
    /// Name in reports.
    pub key: String,
    /// SHA-256 of the image's bytes.
    pub sha256: [u8; 32],
    /// Perceptual hash of the image.
    pub perceptual_hash: u64,
    /// Its texts.
    pub texts: Vec<ScoredText>,
}
