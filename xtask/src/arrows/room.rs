//! A crate as its files say it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::workspace::Crate;

/// A file of a crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// From the repository's root.
    pub path: PathBuf,
    /// The module's names from the crate's root; empty for the root itself.
    pub module: Vec<String>,
    /// Lines of text, without those of inline tests.
    pub lines: usize,
}

/// A crate as its files say it.
#[derive(Debug, Clone)]
pub struct Room {
    /// Name, folder and dependencies.
    pub about: Crate,
    /// Every file that is compiled outside tests, by path.
    pub files: Vec<File>,
    /// For each file, the files of the same crate that it uses.
    pub uses: BTreeMap<usize, BTreeSet<usize>>,
    /// For each file, the paths in it that lead out of the crate, or to nothing that is known:
    /// `std::fs::read`.
    pub outside: BTreeMap<usize, BTreeSet<String>>,
}

impl Room {
    /// Every pair of files of which the first uses the second.
    pub fn arrows(&self) -> impl Iterator<Item = (usize, usize)> {
        self.uses.iter().flat_map(|(from, others)| others.iter().map(|to| (*from, *to)))
    }

    /// The paths of two files.
    pub(super) fn shown(&self, from: usize, to: usize) -> (String, String) {
        let path = |file: usize| self.files[file].path.display().to_string();
        (path(from), path(to))
    }

    /// Whether the crate is of the program, not of its tests and tools.
    pub fn of_the_program(&self) -> bool {
        !["tests", "xtask"].iter().any(|folder| self.about.folder.starts_with(folder))
    }

    /// Lines of all files.
    pub fn lines(&self) -> usize {
        self.files.iter().map(|file| file.lines).sum()
    }
}
