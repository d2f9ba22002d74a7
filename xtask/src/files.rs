//! Files and folders; every error names the path.

use std::path::{Path, PathBuf};

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Makes a folder with those above it.
pub(crate) fn create(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// What lies in a folder.
pub(crate) fn listed(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = folder.read_dir().map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Copies a file, making the folders above the target.
pub(crate) fn take(source: &Path, target: &Path) -> Result<(), String> {
    create(target.parent().unwrap_or(Path::new("/")))?;
    let copied = std::fs::copy(source, target);
    copied.map(|_| ()).map_err(|error| format!("{} to {}: {error}", source.display(), target.display()))
}

/// Lets everybody run a file.
pub(crate) fn executable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let allowed = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, allowed).map_err(|error| format!("{}: {error}", path.display()))
}

/// Whether a file's name ends with `.end`.
pub(crate) fn ends_with(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|own| own == end)
}
