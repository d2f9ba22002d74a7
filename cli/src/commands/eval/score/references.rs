//! What results are scored by, and what comes of it.

use std::path::Path;

use blip2_evaluation::metrics::bootstrap::Scored;
use bytes::Bytes;

use crate::error::CliError;

/// What is right, by which results of one model or two are scored.
pub(in crate::commands::eval) trait References {
    /// Scores a file of results. Those of two files have the same images in the same order.
    fn judge(&self, results: &Path) -> Result<Judged, CliError>;

    /// What the reader of the scores must know of how they were made.
    fn notes(&self) -> Vec<String>;
}

/// The scores of a file of results.
pub(in crate::commands::eval) struct Judged {
    pub(in crate::commands::eval) scored: Box<dyn Scored>,
    /// One for each question, query or image, in the order of the references.
    pub(in crate::commands::eval) cases: Vec<Case>,
}

/// One question, query or image.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::commands::eval) struct Case {
    /// Its id.
    pub(in crate::commands::eval) key: String,
    /// What was asked, where that is known.
    pub(in crate::commands::eval) asked: Option<String>,
    /// What would be right.
    pub(in crate::commands::eval) expected: String,
    /// What the model wrote or found.
    pub(in crate::commands::eval) given: String,
    /// Its score in words.
    pub(in crate::commands::eval) score: String,
    /// Its image as a small JPEG, where the page is to show it.
    pub(in crate::commands::eval) thumbnail: Option<Bytes>,
    /// The worst is the least.
    pub(in crate::commands::eval) order: f64,
}
