//! BLAKE3 of files and folders.

use std::fs::File;
use std::path::Path;

/// The hash of a file, or of a folder's files.
pub(crate) fn hash_of(path: &Path) -> std::io::Result<String> {
    if !path.is_dir() {
        return hash_file(path);
    }
    let mut files = Vec::new();
    hash_each(path, "", &mut files)?;
    Ok(hash_of_files(files))
}

fn hash_each(folder: &Path, prefix: &str, files: &mut Vec<(String, String)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        match path.is_dir() {
            true => hash_each(&path, &format!("{name}/"), files)?,
            false => files.push((name, hash_file(&path)?)),
        }
    }
    Ok(())
}

/// One hash of many: of the lines `HASH  NAME` in the order of the names.
pub(crate) fn hash_of_files(mut files: Vec<(String, String)>) -> String {
    files.sort();
    let lines: String = files.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
    blake3::hash(lines.as_bytes()).to_hex().to_string()
}

/// BLAKE3 (hex) of a file.
pub(crate) fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}
