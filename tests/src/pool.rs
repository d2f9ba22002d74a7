//! A pool of images for a curation, and what the curation leaves.

use std::collections::BTreeMap;
use std::path::Path;

use crate::corpus::{Row, good_rows, truncated_picture, write};
use crate::process::repository;

/// A pool in a folder of its own, with the places of curations beside it.
#[derive(Debug)]
pub struct Pool {
    folder: tempfile::TempDir,
}

impl Pool {
    /// So many files of one row group each, which is a task each, with so many rows; one image of the fourth
    /// is bad.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn new(files: usize, rows: usize) -> Self {
        let pool = Self { folder: tempfile::tempdir().expect("a folder for the pool") };
        for file in 0..files {
            let mut rows: Vec<Row> = good_rows(rows);
            if file == 3 {
                rows[2].image = truncated_picture();
            }
            write(Path::new(&pool.path(&format!("in-{file}.parquet"))), "jpg", &rows);
        }
        pool
    }

    /// A place in the pool's folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("temporary folders have UTF-8 names").to_owned()
    }

    /// The words that curate it to `out` with small models.
    pub fn arguments(&self, out: &str) -> Vec<String> {
        let folder = |name: &str| repository().join("assets/backbones").join(name).display().to_string();
        let settings = [
            format!("curation.input=[\"{}\"]", self.path("in-*.parquet")),
            format!("curation.output={}", self.path(out)),
            format!("curation.models.captioner={}", folder("blip-tiny")),
            format!("curation.models.clip={}", folder("clip-tiny")),
            "curation.models.captions=3".into(),
            "curation.models.max_new_tokens=8".into(),
            "curation.task_row_groups=1".into(),
            "curation.lease_seconds=2".into(),
        ];
        settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect()
    }

    /// Everything below a folder but the times of runs, and what a killed process was just writing.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn files(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let root = self.folder.path().join(out);
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name =
                    path.strip_prefix(&root).ok().and_then(Path::to_str).expect("a name in it").to_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if !name.contains('#') && !name.starts_with("runs/") {
                    found.insert(name, std::fs::read(path).expect("a file"));
                }
            }
        }
        found
    }
}
