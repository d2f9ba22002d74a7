//! What results are scored by, and what comes of it.

use std::path::Path;

use blip2_evaluation::metrics::bootstrap::Scored;

use crate::error::CliError;

/// What is right, by which results of one model or two are scored.
pub(super) trait References {
    /// Scores a file of results. Those of two files have the same images in the same order.
    fn judge(&self, results: &Path) -> Result<Judged, CliError>;

    /// What the reader of the scores must know of how they were made.
    fn notes(&self) -> Vec<String>;
}

/// The scores of a file of results.
pub(super) struct Judged {
    pub(super) scored: Box<dyn Scored>,
    /// One for each question, query or image, in the order of the references.
    pub(super) cases: Vec<Case>,
}

/// One question, query or image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Case {
    /// Its id.
    pub(super) key: String,
    /// What was asked, where that is known.
    pub(super) asked: Option<String>,
    /// What would be right.
    pub(super) expected: String,
    /// What the model wrote or found.
    pub(super) given: String,
    /// Its score in words.
    pub(super) score: String,
    /// The worst is the least.
    pub(super) order: f64,
}
