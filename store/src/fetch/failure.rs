//! What goes wrong while something is brought here.

use crate::error::StoreError;
use crate::secret_url::{redacted, redacted_text};

/// A hash other than the one that was asked for.
pub(crate) fn other_content(url: &str, expected: &str, found: &str) -> StoreError {
    StoreError::OtherContent {
        location: redacted(url),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

/// A URL that cannot be brought here, and why.
pub(crate) fn fetch_error(url: &str, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Fetch { location: redacted(url), reason: redacted_text(&reason.to_string()) }
}
