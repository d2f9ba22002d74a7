//! The Vulkan driver of a check.

use std::path::{Path, PathBuf};

/// Where drivers register themselves.
const FOLDERS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// Folders of shared libraries.
const LIBRARIES: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

const LOADER: &str = "libvulkan.so.1";

const INSTALL: &str = "on Debian: apt-get install mesa-vulkan-drivers libvulkan1";

/// The registration file of Mesa's software driver, the Vulkan loader being there too.
pub(crate) fn software() -> Result<PathBuf, String> {
    find(&FOLDERS.map(Path::new), &LIBRARIES.map(Path::new))
}

fn find(registered: &[&Path], libraries: &[&Path]) -> Result<PathBuf, String> {
    if !libraries.iter().any(|folder| folder.join(LOADER).exists()) {
        return Err(format!("the Vulkan loader ({LOADER}) is not installed; {INSTALL}"));
    }
    let files = registered.iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
    let mut drivers: Vec<PathBuf> = files
        .map(|file| file.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd")))
        .collect();
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
        let path = folder.path();
        let look = || find(&[path], &[path]);
        assert!(look().unwrap_err().contains("libvulkan1"));
        std::fs::write(path.join(LOADER), "").unwrap();
        assert!(look().unwrap_err().contains("mesa-vulkan-drivers"));
        std::fs::write(path.join("lvp_icd.x86_64.json"), "").unwrap();
        assert_eq!(look().unwrap(), path.join("lvp_icd.x86_64.json"));
    }
}
