//! Where the repository's assets are, and manifests for tests.

use std::path::PathBuf;

use crate::corpus::manifest::{Manifest, ManifestFile};

/// A pattern among the emoji corpus.
pub(crate) fn emoji_sources(pattern: &str) -> Vec<String> {
    vec![format!("{}/../assets/corpus/{pattern}", env!("CARGO_MANIFEST_DIR"))]
}

/// A folder of the tiny backbones.
pub(crate) fn backbone(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
}

/// A manifest of files that are not there, with so many rows in each row group.
pub(crate) fn manifest(files: &[&[u32]]) -> Manifest {
    let file = |(index, rows): (usize, &&[u32])| ManifestFile {
        location: format!("/c/{index}.parquet"),
        bytes: 1,
        etag: None,
        row_groups: rows.to_vec(),
        failed: Vec::new(),
    };
    Manifest::of(files.iter().enumerate().map(file).collect())
}
