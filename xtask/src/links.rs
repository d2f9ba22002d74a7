//! What documents point at: other documents, their headings, and files.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// The links of a document: path, from the repository's root, and heading; of those within the repository.
pub fn links(document: &Path, text: &str) -> Vec<(PathBuf, Option<String>)> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inside = targets.filter(|target| !target.contains("://") && !target.contains(' '));
    inside.map(|target| resolve(document, target)).collect()
}

/// The path that a link of a document means, and the heading.
pub fn resolve(document: &Path, target: &str) -> (PathBuf, Option<String>) {
    let (path, heading) = match target.split_once('#') {
        Some((path, heading)) => (path, Some(heading.to_owned())),
        None => (target, None),
    };
    if path.is_empty() {
        return (document.to_path_buf(), heading);
    }
    let folder = document.parent().unwrap_or(Path::new(""));
    let mut whole = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => _ = whole.pop(),
            other => whole.push(other),
        }
    }
    (whole, heading)
}

/// The names by which a document's headings are linked to.
pub fn headings(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        !fenced && line.starts_with('#')
    });
    lines.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// As GitHub makes it: lower case, blanks as hyphens, without other signs.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|sign| sign.is_alphanumeric() || ['-', '_'].contains(sign)).collect()
}

/// Paths of files that a document names as code: those with a folder and an extension of the repository's own
/// files. `NAME` in a path stands for a name that is yet to be chosen.
pub fn named_files(text: &str) -> BTreeSet<&str> {
    let words = text.split('`').skip(1).step_by(2);
    words
        .filter(|word| {
            word.contains('/') && [".rs", ".md", ".toml", ".proto"].iter().any(|end| word.ends_with(end))
        })
        .filter(|word| !word.contains("NAME"))
        .filter(|word| word.chars().all(|sign| sign.is_ascii_alphanumeric() || "_-./".contains(sign)))
        .collect()
}

/// Folders and modules that a document names as code by a path without an extension: those below one of the
/// repository's own `folders`.
pub fn named_modules<'t>(text: &'t str, folders: &BTreeSet<String>) -> BTreeSet<&'t str> {
    let words = text.split('`').skip(1).step_by(2);
    words
        .filter(|word| word.split_once('/').is_some_and(|(first, _)| folders.contains(first)))
        .filter(|word| !word.contains(['.', '*']) && !word.contains("NAME"))
        .filter(|word| word.chars().all(|sign| sign.is_ascii_alphanumeric() || "_-/".contains(sign)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_headings_as_they_are_shown() {
        let text = "[a](../README.md#two-words) [b](#here) [c](https://x.org) [d](b/c.md)\n# Here: `x`, and so\n```\n# no\n```\n";
        let links = links(Path::new("docs/a.md"), text);
        let found: Vec<(&str, Option<&str>)> =
            links.iter().map(|(path, heading)| (path.to_str().unwrap(), heading.as_deref())).collect();
        let wanted = [("README.md", Some("two-words")), ("docs/a.md", Some("here")), ("docs/b/c.md", None)];
        assert_eq!(found, wanted);
        assert_eq!(headings(text).into_iter().collect::<Vec<_>>(), ["here-x-and-so"]);
    }

    #[test]
    fn files_that_are_named() {
        let text = "`a/b.rs` and `c.rs`, `run/commit/` or `https://x.org/a.md`, `f/NAME.rs`, `d/e.toml`.";
        assert_eq!(named_files(text).into_iter().collect::<Vec<_>>(), ["a/b.rs", "d/e.toml"]);
    }

    #[test]
    fn folders_and_modules_that_are_named() {
        let text = "`a/b` and `c/d`, `a/NAME`, `a/b.rs`, `a/e/`, `a/f g`.";
        let found = named_modules(text, &["a".to_owned()].into());
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a/b", "a/e/"]);
    }
}
