//! Answers with their nouns and verbs as lemmas, as another program wrote them down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::entries::Entries;
use super::parse::parse;
use crate::file_error::{FileError, Result};

/// Answers that are named where the file lacks them.
const NAMED: usize = 5;

/// The answers as `{"two dogs": "two dog"}` has them.
///
/// # Errors
/// A file that cannot be read or is of another form, and one that lacks an answer: there is no telling
/// whether that would have stayed as it is.
pub fn apply(path: &Path, answers: &[String]) -> Result<Vec<String>> {
    let lemmas: BTreeMap<String, String> = parse::<Entries<String>>(path)?.0.into_iter().collect();
    let lacking: BTreeSet<&String> = answers.iter().filter(|answer| !lemmas.contains_key(*answer)).collect();
    if !lacking.is_empty() {
        let named: Vec<String> = lacking.iter().take(NAMED).map(|answer| format!("{answer:?}")).collect();
        let more = if lacking.len() > NAMED { ", …" } else { "" };
        let reason = format!("lacks {} answers: {}{more}", lacking.len(), named.join(", "));
        return Err(FileError::unusable(path, reason));
    }
    Ok(answers.iter().filter_map(|answer| lemmas.get(answer)).cloned().collect())
}
