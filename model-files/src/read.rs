//! Small files of a model's folder.

use std::path::Path;

use serde_json::Value;

use crate::error::ModelError;
use crate::lfs::{is_lfs_pointer, lfs_reason};

/// The bytes of a file that is no Git LFS pointer.
pub fn read_file(path: &Path) -> Result<Vec<u8>, ModelError> {
    let bytes = std::fs::read(path).map_err(|e| ModelError::io(path, e))?;
    match is_lfs_pointer(&bytes) {
        true => Err(ModelError::Config { path: path.into(), reason: lfs_reason() }),
        false => Ok(bytes),
    }
}

/// Reads a JSON file.
pub fn read_json(path: &Path) -> Result<Value, ModelError> {
    let bytes = read_file(path)?;
    // Some editors put a mark in front of UTF-8, which is no JSON.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(text)
        .map_err(|e| ModelError::Config { path: path.into(), reason: format!("not JSON: {e}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_called_by_their_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
        std::fs::write(&path, pointer).unwrap();
        let error = read_json(&path).unwrap_err().to_string();
        assert!(error.contains("config.json") && error.contains("Git LFS pointer"), "{error}");
        std::fs::write(&path, "\u{feff}{}").unwrap();
        assert!(read_json(&path).unwrap().is_object());
    }
}
