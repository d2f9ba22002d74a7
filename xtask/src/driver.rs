//! The Vulkan driver of a check.

use std::path::{Path, PathBuf};

/// Where drivers register themselves.
const FOLDERS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// Folders of shared libraries.
const LIBRARIES: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

const LOADER: &str = "libvulkan.so.1";

const INSTALL: &str = "on Debian: apt-get install mesa-vulkan-drivers libvulkan1";

/// The registration file of Mesa's software driver, the Vulkan loader being there too; a path inside `root`.
pub(crate) fn software(root: &Path) -> Result<PathBuf, String> {
    find(root, &FOLDERS.map(Path::new), &LIBRARIES.map(Path::new))
}

fn find(root: &Path, registered: &[&Path], libraries: &[&Path]) -> Result<PathBuf, String> {
    let outside = |folder: &Path| root.join(folder.strip_prefix("/").unwrap_or(folder));
    if !libraries.iter().any(|folder| outside(folder).join(LOADER).exists()) {
        return Err(format!("the Vulkan loader ({LOADER}) is not installed; {INSTALL}"));
    }
    let named = |folder: &&Path| -> Vec<PathBuf> {
        let files = outside(folder).read_dir().into_iter().flatten().flatten();
        files
            .map(|file| file.file_name())
            .filter(|name| name.to_string_lossy().starts_with("lvp_icd"))
            .map(|name| folder.join(name))
            .collect()
    };
    let mut drivers: Vec<PathBuf> = registered.iter().flat_map(named).collect();
    drivers.sort();
    drivers.into_iter().next().ok_or_else(|| {
        format!("Mesa's software driver is not installed (no lvp_icd*.json in {FOLDERS:?}); {INSTALL}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let there = Path::new("/there");
        let path = folder.path().join("there");
        std::fs::create_dir(&path).unwrap();
        let look = || find(folder.path(), &[there], &[there]);
        assert!(look().unwrap_err().contains("libvulkan1"));
        std::fs::write(path.join(LOADER), "").unwrap();
        assert!(look().unwrap_err().contains("mesa-vulkan-drivers"));
        std::fs::write(path.join("lvp_icd.x86_64.json"), "").unwrap();
        assert_eq!(look().unwrap(), there.join("lvp_icd.x86_64.json"));
    }
}
