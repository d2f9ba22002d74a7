//! The repository's files as text: which there are, and where their lines are too long.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Columns of a line of comment in Rust.
pub const COMMENT: usize = 110;

/// Columns of a line in a document.
pub const DOCUMENT: usize = 130;

/// Others' crates with a change of ours, which are as their authors wrote them.
const OTHERS: &str = "vendor/";

/// All files of the repository at `root`, from there, but those that git ignores and those of others' crates,
/// whose pages are listed; in order.
///
/// # Errors
///
/// When git cannot list them.
pub fn files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = |name: &&str| !name.starts_with(OTHERS) || name.ends_with("README.md");
    let paths: BTreeSet<PathBuf> = names.split_terminator('\0').filter(ours).map(PathBuf::from).collect();
    Ok(paths.into_iter().filter(|path| root.join(path).is_file()).collect())
}

/// Lines of comment that are longer than [`COMMENT`], by number.
pub fn long_comments(text: &str) -> Vec<usize> {
    let comments = text.lines().enumerate().filter_map(|(number, line)| {
        let words = line.trim_start().strip_prefix("//")?;
        Some((number, line, words.trim_start_matches(['/', '!', ' '])))
    });
    too_long(comments, COMMENT)
}

/// Lines of a document that are longer than [`DOCUMENT`], by number.
pub fn long_lines(text: &str) -> Vec<usize> {
    too_long(text.lines().enumerate().map(|(number, line)| (number, line, line.trim_start())), DOCUMENT)
}

/// Of the lines, with their words, those that are too long: but for tables, for what stands between fences,
/// and for a word that is too long itself.
fn too_long<'a>(lines: impl Iterator<Item = (usize, &'a str, &'a str)>, columns: usize) -> Vec<usize> {
    let mut fenced = false;
    let found = lines.filter(|(_, line, words)| {
        fenced ^= words.starts_with("```");
        !fenced && !words.starts_with('|') && line.chars().count() > columns && words.contains(' ')
    });
    found.map(|(number, _, _)| number + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_code_may_be_long() {
        let long = "word ".repeat(30);
        let text = format!("fn f() {{\n    // {long}\n}}\n/// ```\n/// {long}\n/// ```\n//! | {long} |\n");
        assert_eq!(long_comments(&text), [2]);
        let one = "w".repeat(200);
        assert_eq!(long_lines(&format!("{long}\n{one}\n| {long} |\n```\n{long}\n```\n")), [1]);
    }
}
