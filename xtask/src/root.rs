//! The root folder of another system, whose libraries a check's programs run with.

use std::path::{Path, PathBuf};

/// Run with the root and three folders of this system, then the program: enters a mount namespace's view of
/// the root in which these folders are where they are outside, so that paths mean the same on both sides.
const ENTER: &str = r#"root=$1; here=$PWD
for folder in /proc /dev /sys "$2" "$3" "$4"; do
  mkdir -p "$root$folder"
  mount --rbind "$folder" "$root$folder"
done
shift 4
exec chroot "$root" env -C "$here" "$@""#;

/// A root folder that programs are run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root(PathBuf);

impl Root {
    /// The root at `folder`, which must hold a system.
    pub(crate) fn open(folder: &str) -> Result<Self, String> {
        let path = Path::new(folder).canonicalize().map_err(|error| format!("--root {folder}: {error}"))?;
        if path.join("usr/bin/env").exists() {
            return Ok(Self(path));
        }
        Err(format!("--root {folder}: there is no system in it (usr/bin/env); make one with debootstrap"))
    }

    /// The folder, seen from outside.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// The command before a program, which then runs in this root, with `folders` visible: workspace, target
    /// and temporary folder. Not the loader's variables, so that programs that the program starts run there
    /// too.
    pub(crate) fn runner(&self, folders: [&Path; 3]) -> Vec<String> {
        let mut words: Vec<String> =
            ["unshare", "--mount", "sh", "-ec", ENTER, "enter"].map(String::from).to_vec();
        words.push(self.0.display().to_string());
        words.extend(folders.map(|folder| folder.display().to_string()));
        words
    }
}

/// Cargo's setting of the command before every program that it runs.
pub(crate) fn setting(runner: &[String]) -> String {
    // A JSON string is a TOML string.
    format!("target.'cfg(unix)'.runner={}", serde_json::Value::from(runner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_holds_a_system_and_the_runner_ends_with_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().display().to_string();
        assert!(Root::open(&name).unwrap_err().contains("debootstrap"));
        assert!(Root::open("/no/such/folder").unwrap_err().contains("/no/such/folder"));
        std::fs::create_dir_all(folder.path().join("usr/bin")).unwrap();
        std::fs::write(folder.path().join("usr/bin/env"), "").unwrap();
        let root = Root::open(&name).unwrap();
        let words = root.runner([Path::new("/a"), Path::new("/b"), Path::new("/c")]);
        let setting = setting(&words);
        let value = setting.strip_prefix("target.'cfg(unix)'.runner=").unwrap();
        assert_eq!(serde_json::from_str::<Vec<String>>(value).unwrap(), words);
        assert_eq!(words[..4], ["unshare", "--mount", "sh", "-ec"]);
        let root = root.folder().display().to_string();
        assert_eq!(words[6..], [root.as_str(), "/a", "/b", "/c"]);
    }
}
