//! A small disk of its own, where root may mount one.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Its size: a run's checkpoints, and as much again.
const SIZE: &str = "size=512m";

/// A mounted file system in memory; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Tmpfs {
    folder: PathBuf,
}

impl Tmpfs {
    /// Mounts one at the folder, which is made; `None` where that is not allowed.
    pub(crate) fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "blip2-chaos"]).arg(folder).output();
        mounted.is_ok_and(|ended| ended.status.success()).then(|| Self { folder: folder.to_path_buf() })
    }

    /// Leaves not a byte free for a while.
    pub(crate) fn fill(&self, time: Duration) {
        let path = self.folder.join("filler");
        let mut file = File::create(&path).expect("the filler can be created");
        let block = vec![0u8; 1 << 20];
        let mut left = block.len();
        while left > 0 {
            if file.write_all(&block[..left]).is_err() {
                left /= 2;
            }
        }
        std::thread::sleep(time);
        std::fs::remove_file(&path).expect("the filler can be removed");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have files open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).status();
    }
}
