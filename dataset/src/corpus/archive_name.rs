//! What archives are called.

/// Endings of the names of archives, packed in whatever way.
pub(crate) const ARCHIVE_ENDINGS: [&str; 11] =
    ["tar", "tar.gz", "tgz", "tar.zst", "tar.zstd", "tzst", "tar.bz2", "tbz2", "tar.xz", "txz", "tar.lz4"];

/// Whether a file is an archive by its name.
pub fn is_archive(name: &str) -> bool {
    stem_of_archive(name).is_some()
}

/// The name of an archive without its ending.
pub(crate) fn stem_of_archive(name: &str) -> Option<&str> {
    let lower = name.to_ascii_lowercase();
    let ends = |ending: &&&str| lower.strip_suffix(**ending).is_some_and(|rest| rest.ends_with('.'));
    let ending = ARCHIVE_ENDINGS.iter().filter(ends).map(|ending| ending.len() + 1).max()?;
    name.get(..name.len() - ending)
}
