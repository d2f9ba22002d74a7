//! The local disk as a store of files alone: opening a FIFO waits for whoever writes to it, and a device has
//! no end.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs::FileType;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetResult, ObjectStore as _, Result};

use super::around::{Around, Otherwise};

/// Paths that are remembered to be files, at most.
const REMEMBERED: usize = 1 << 16;

/// What is at a path and is no file.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it is {0}, not a file")]
pub(crate) struct NotAFile(&'static str);

impl NotAFile {
    /// What a path of this type is, if it is neither a file nor a folder.
    fn of(kind: FileType) -> Option<Self> {
        if kind.is_file() || kind.is_dir() {
            return None;
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt as _;
            if kind.is_fifo() {
                return Some(Self("a FIFO"));
            }
            if kind.is_socket() {
                return Some(Self("a socket"));
            }
            if kind.is_block_device() || kind.is_char_device() {
                return Some(Self("a device"));
            }
        }
        Some(Self("something else"))
    }

    /// Whether this is why a store failed.
    pub(crate) fn in_error(error: &Error) -> Option<Self> {
        let mut causes = std::iter::successors(error.source(), |error| (*error).source());
        causes.find_map(|cause| cause.downcast_ref::<Self>()).copied()
    }
}

/// The local disk.
#[derive(Debug)]
pub(crate) struct RegularFiles {
    disk: LocalFileSystem,
    /// Paths that were files: a corpus is read in many pieces, and looked at once.
    files: Mutex<BTreeSet<Path>>,
}

impl RegularFiles {
    pub(crate) fn store() -> Around<Self> {
        Around(Self { disk: LocalFileSystem::new().with_fsync(true), files: Mutex::default() })
    }

    /// Refuses what is no file before it is opened.
    async fn check(&self, location: &Path) -> Result<()> {
        let files = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files().contains(location) {
            return Ok(());
        }
        let path = self.disk.path_to_filesystem(location)?;
        let Ok(found) = tokio::fs::metadata(path).await else { return Ok(()) };
        if let Some(found) = NotAFile::of(found.file_type()) {
            return Err(Error::NotSupported { source: Box::new(found) });
        }
        if found.is_file() {
            let mut files = files();
            if files.len() == REMEMBERED {
                files.clear();
            }
            files.insert(location.clone());
        }
        Ok(())
    }
}

#[async_trait]
impl Otherwise for RegularFiles {
    type Within = LocalFileSystem;

    fn within(&self) -> &LocalFileSystem {
        &self.disk
    }

    async fn get(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(path).await?;
        self.disk.get_opts(path, options).await
    }

    async fn ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(path).await?;
        self.disk.get_ranges(path, ranges).await
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::path::Path;
    use object_store::{ObjectStore as _, ObjectStoreExt as _};

    use super::RegularFiles;
    use crate::Location;

    #[tokio::test]
    async fn what_is_no_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let fifo = folder.path().join("fifo.parquet");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for (path, kind) in [
            (fifo.to_str().unwrap(), "a FIFO"),
            (socket.to_str().unwrap(), "a socket"),
            ("/dev/zero", "a device"),
        ] {
            let location = Location::parse(path).unwrap();
            let within = Duration::from_secs(30);
            let head = tokio::time::timeout(within, location.head()).await.unwrap().unwrap_err();
            assert!(head.to_string().contains(kind) && head.is_bad_input(), "{head}");
            let read = tokio::time::timeout(within, location.read()).await.unwrap().unwrap_err();
            assert!(read.to_string().contains(path) && read.is_bad_input(), "{read}");
        }
    }

    #[tokio::test]
    async fn a_file_is_looked_at_once_and_read_as_it_is_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, "one").unwrap();
        let disk = RegularFiles::store();
        let inside = Path::from_filesystem_path(&path).unwrap();
        for content in ["one", "other"] {
            std::fs::write(&path, content).unwrap();
            let read = disk.get_ranges(&inside, std::slice::from_ref(&(0..3))).await.unwrap();
            assert_eq!(read[0], content.as_bytes()[..3]);
        }
        assert_eq!(disk.0.files.lock().unwrap().len(), 1);
        let absent = Path::from_filesystem_path(folder.path()).unwrap().join("absent");
        assert!(matches!(disk.get(&absent).await, Err(object_store::Error::NotFound { .. })));
        assert_eq!(disk.0.files.lock().unwrap().len(), 1, "what is not there may be there later");
    }
}
