//! Writing under another name until everything is there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use blip2_model_files::error::ModelError;

/// A folder or file beside the final one, removed unless it is published.
pub(super) struct Staging {
    path: PathBuf,
    published: bool,
}

impl Staging {
    /// A new folder beside `folder`.
    pub(super) fn create(folder: &Path) -> Result<Self, ModelError> {
        let staging = Self::beside(folder)?;
        fs::create_dir_all(&staging.path).map_err(|e| ModelError::io(&staging.path, e))?;
        Ok(staging)
    }

    /// A name beside `target`, which must not exist; what a killed export left there is removed.
    pub(super) fn beside(target: &Path) -> Result<Self, ModelError> {
        if fs::symlink_metadata(target).is_ok() {
            let reason = format!("{} exists: choose another name or remove it", target.display());
            return Err(ModelError::input("export", reason));
        }
        let Some(name) = target.file_name() else {
            let reason = format!("{} has no name", target.display());
            return Err(ModelError::input("export", reason));
        };
        let path = target.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        remove(&path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| ModelError::io(parent, e))?;
        }
        Ok(Self { path, published: false })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives everything its final name.
    pub(super) fn publish(mut self, target: &Path) -> Result<(), ModelError> {
        fs::rename(&self.path, target).map_err(|e| ModelError::io(target, e))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            remove(&self.path);
        }
    }
}

/// Removes what is there, if it can be: what fails next says why it could not.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// Writes a JSON file that is on the disk when this returns.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| ModelError::Config { path: path.into(), reason: e.to_string() })?;
    text.push('\n');
    let mut file = fs::File::create(path).map_err(|e| ModelError::io(path, e))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| ModelError::io(path, e))
}
