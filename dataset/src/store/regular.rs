//! The local disk as a store of files alone: opening a FIFO waits for whoever writes to it, and a device has no end.

use std::error::Error as _;
use std::fmt;
use std::fs::FileType;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

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
pub(super) struct RegularFiles(LocalFileSystem);

impl RegularFiles {
    pub(super) fn new() -> Self {
        Self(LocalFileSystem::new().with_fsync(true))
    }

    /// Refuses what is no file before it is opened.
    async fn check(&self, location: &Path) -> Result<()> {
        let path = self.0.path_to_filesystem(location)?;
        let kind = tokio::fs::metadata(path).await.ok().map(|found| found.file_type());
        match kind.and_then(NotAFile::of) {
            Some(found) => Err(Error::NotSupported { source: Box::new(found) }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RegularFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for RegularFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(location).await?;
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(location).await?;
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use crate::store::Location;

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
}
