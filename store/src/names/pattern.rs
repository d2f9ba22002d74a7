//! Patterns of names, and which names a folder stands for.

use glob::{MatchOptions, Pattern};

use super::braces;
use crate::error::{Result, StoreError};
use crate::location::refused;

/// How names are compared with patterns: a `*` matches neither a `/` nor a dot at the beginning.
pub(crate) const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// In web addresses only `*` and braces are patterns: `?` begins the query.
pub(crate) fn is_remote_pattern(base: &str, text: &str) -> bool {
    match base.starts_with("http") {
        true => text.contains('*') || braces::has_braces(text),
        false => is_pattern(text),
    }
}

/// Whether a path segment has characters of patterns.
pub(crate) fn is_pattern(segment: &str) -> bool {
    segment.contains(['*', '?', '[']) || braces::has_braces(segment)
}

/// A pattern; brackets that are not closed are characters like any other.
pub(crate) fn compile(pattern: &str) -> Result<Pattern> {
    Pattern::new(pattern)
        .or_else(|_| Pattern::new(&pattern.replace('[', "[[]")))
        .map_err(|error| refused(pattern, format!("not a pattern: {}", error.msg)))
}

/// Whether a file is one of those that a folder stands for; hidden ones are not.
pub(crate) fn has_ending(name: &str, endings: &[&str]) -> bool {
    let lower = name.to_ascii_lowercase();
    let ends = |ending: &&str| lower.strip_suffix(*ending).is_some_and(|rest| rest.ends_with('.'));
    !name.starts_with(['.', '_']) && endings.iter().any(ends)
}

/// Whether data is looked for in a folder of that name: not in hidden ones, nor in an ingestion's lists of
/// rejected rows.
pub(crate) fn is_data_folder(name: &str) -> bool {
    !name.starts_with(['.', '_']) && name != "rejected"
}

/// Whether a path is that of an ingestion's list of rejected rows, which `**` does not mean.
pub(crate) fn is_reject_list(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let number = parts.next().and_then(|name| name.strip_suffix(".parquet"));
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        && parts.next() == Some("rejected")
}

/// The error of a folder without such files.
pub(crate) fn empty_folder(folder: String, endings: &[&str]) -> StoreError {
    let endings: Vec<_> = endings.iter().map(|ending| format!("*.{ending}")).collect();
    StoreError::EmptyFolder { folder, wanted: endings.join(", ") }
}
