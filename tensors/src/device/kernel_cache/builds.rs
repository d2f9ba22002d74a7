//! Folders by build of the program: the one of this build, and how many of others stay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Builds beside this one whose folders stay on disk: those that were used last.
const OTHER_BUILDS: usize = 3;
/// The file that says when a build was used last.
const MARK: &str = "used";

/// The folder of the build of this mark, which is there and used last afterwards; those of builds that
/// were used longest ago are removed.
pub(super) fn folder_of_build(root: &Path, host: &str, build: Option<&[u8]>) -> Result<PathBuf, String> {
    let build = build.filter(|mark| !mark.is_empty());
    let build = build.ok_or("this program carries no build id (link it with `--build-id`)")?;
    let builds = root.join(host);
    let folder = builds.join(build.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    fs::write(folder.join(MARK), "now").map_err(failed)?;
    remove_old(&builds, &folder).map_err(failed)?;
    Ok(folder)
}

/// Removes all builds but `own` and the [`OTHER_BUILDS`] that were used last. What another process
/// removes at the same time is no error.
fn remove_old(builds: &Path, own: &Path) -> io::Result<()> {
    let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(builds)? {
        let folder = entry?.path();
        let used = fs::metadata(folder.join(MARK)).and_then(|mark| mark.modified());
        if let Ok(used) = used
            && folder != own
        {
            others.push((used, folder));
        }
    }
    others.sort();
    let old = others.len().saturating_sub(OTHER_BUILDS);
    for (_, folder) in &others[..old] {
        let _ = fs::remove_dir_all(folder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_build_has_its_folder_and_those_used_longest_ago_go() {
        let root = tempfile::tempdir().unwrap();
        let folder = |build: u8| folder_of_build(root.path(), "here", Some(&[build, 0xab])).unwrap();
        let folders: Vec<PathBuf> = (0..4).map(folder).collect();
        assert_eq!(folders[1], root.path().join("here/01ab"));
        for (hours, folder) in (0..).zip(folders.iter().rev()) {
            let mark = File::create(folder.join(MARK)).unwrap();
            mark.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * (9 - hours))).unwrap();
        }
        let other_host = folder_of_build(root.path(), "there", Some(&[9])).unwrap();
        // The first one is used again, and then a new one.
        folder(0);
        let left = |folder: &PathBuf| folder.is_dir();
        assert!(folders.iter().all(left));
        assert!(left(&folder(4)));
        assert_eq!(folders.iter().map(left).collect::<Vec<_>>(), [true, false, true, true]);
        assert!(left(&other_host), "another host's are its own");
    }

    #[test]
    fn a_program_without_a_mark_of_its_build_keeps_nothing() {
        let root = tempfile::tempdir().unwrap();
        for build in [None, Some(&[][..])] {
            let error = folder_of_build(root.path(), "here", build).unwrap_err();
            assert!(error.contains("build id"), "{error}");
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let root = tempfile::NamedTempFile::new().unwrap();
        let error = folder_of_build(root.path(), "here", Some(&[1])).unwrap_err();
        assert!(error.contains(&root.path().display().to_string()), "{error}");
    }
}
