//! What keeps captions from being scored.

use blip2_run::exit::{Exit, ExitClass};

/// `Result` of the captions' metrics.
pub type Result<T, E = CaptionsError> = std::result::Result<T, E>;

/// How many ids a message names.
const NAMED: usize = 5;

/// Captions that are no set to score.
#[derive(Debug, thiserror::Error)]
pub enum CaptionsError {
    /// No image at all.
    #[error("no image to score: the results are empty")]
    Empty,
    /// A file that is not what it should be.
    #[error("{origin}: {what}")]
    Form {
        /// The file.
        origin: String,
        /// What was found, and what is expected.
        what: String,
    },
    /// Images without references.
    #[error("{} of the images have no reference caption: {}", images.len(), named(images))]
    NoReference {
        /// Their ids.
        images: Vec<String>,
    },
    /// Two captions of one image where one is expected.
    #[error("{} of the images have more than one generated caption: {}", images.len(), named(images))]
    Twice {
        /// Their ids.
        images: Vec<String>,
    },
    /// Results for images that the annotations do not have.
    #[error(
        "{results}: {} of the images are not in {annotations}: {}; are these the annotations of the set that was captioned?",
        images.len(), named(images)
    )]
    Unknown {
        /// The results' file.
        results: String,
        /// The annotations' file.
        annotations: String,
        /// Ids of the images.
        images: Vec<String>,
    },
    /// Images that have no result.
    #[error(
        "{results}: {} of the images of {annotations} have no caption: {}; every image needs one",
        images.len(), named(images)
    )]
    Missing {
        /// The results' file.
        results: String,
        /// The annotations' file.
        annotations: String,
        /// Ids of the images.
        images: Vec<String>,
    },
    /// As many values as images were expected.
    #[error("{what}: {found} values for {images} images")]
    Values {
        /// Of which metric.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many were expected.
        images: usize,
    },
}

/// The first few of these ids, and how many more there are.
fn named(ids: &[String]) -> String {
    let first = ids.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if ids.len() > NAMED { format!("{first} and {} more", ids.len() - NAMED) } else { first }
}

impl ExitClass for CaptionsError {
    fn exit(&self) -> Exit {
        Exit::BadConfig
    }
}
