//! Create-if-absent on local file systems without hard links.
//!
//! A local file is created by linking a finished temporary file to its name, which fails if the name is
//! taken. Some file systems have no links (vfat, exFAT, many that are mounted over a network or FUSE); there
//! a rename that replaces nothing does the same.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use tempfile::NamedTempFile;

use crate::error::{Result, StoreError};
use crate::location::Location;

/// What Linux answers to a link where there are none: EPERM, EXDEV, ENOSYS, EOPNOTSUPP; elsewhere EMLINK,
/// ENOTSUP.
const NO_LINKS: [i32; 6] = [1, 18, 38, 95, 31, 45];

/// Whether a write failed because the file system has no links.
pub(crate) fn needs_other_way(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return has_no_links(error);
        }
        cause = error.source();
    }
    false
}

fn has_no_links(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error().is_some_and(|code| NO_LINKS.contains(&code))
}

/// Creates the file unless it exists, by a rename that replaces nothing.
///
/// # Errors
/// [`StoreError::Failed`] where the file system has neither; the folder then cannot hold a run.
pub(crate) async fn create(location: &Location, content: Bytes) -> Result<bool> {
    let path = LocalFileSystem::new()
        .path_to_filesystem(location.path())
        .map_err(|error| location.failed("write", &error))?;
    let created = tokio::task::spawn_blocking(move || create_by(&path, &content, persist)).await;
    let created = created.unwrap_or_else(|error| Err(io::Error::other(error)));
    created.map_err(|error| StoreError::Failed {
        location: location.to_string(),
        action: "write",
        reason: format!(
            "{error}; this file system has neither hard links nor renames that replace nothing, so that nobody can tell \
             who created a file first: keep runs on another one, or in an object store"
        ),
    })
}

/// Gives a finished temporary file its name, unless the name is taken.
type Persist = fn(NamedTempFile, &Path) -> io::Result<()>;

fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.persist_noclobber(path).map(drop).map_err(|error| error.error)
}

fn create_by(path: &Path, content: &[u8], persist: Persist) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    // The umask takes its part, as from every other file.
    let everybody = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(everybody).tempfile_in(folder)?;
    io::Write::write_all(&mut file, content)?;
    file.as_file().sync_all()?;
    match persist(file, path) {
        Ok(()) => {
            std::fs::File::open(folder)?.sync_all()?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::path::Path as StorePath;
    use object_store::{ObjectStore as _, PutMode, PutOptions, PutPayload, PutResult, Result as StoreResult};

    use super::*;
    use crate::clients::{Around, Otherwise};
    use crate::put_create::put_create;

    #[test]
    fn a_file_system_without_links_is_told_by_its_error() {
        let failed = |code| object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(io::Error::from_raw_os_error(code)),
        };
        assert!(needs_other_way(&failed(1)) && needs_other_way(&failed(95)));
        assert!(!needs_other_way(&failed(28)), "a full disk is no reason");
    }

    /// A local disk that has no hard links.
    #[derive(Debug)]
    struct NoLinks(LocalFileSystem);

    #[async_trait::async_trait]
    impl Otherwise for NoLinks {
        type Within = LocalFileSystem;

        fn within(&self) -> &LocalFileSystem {
            &self.0
        }

        async fn put(
            &self,
            path: &StorePath,
            payload: PutPayload,
            options: PutOptions,
        ) -> StoreResult<PutResult> {
            match options.mode {
                PutMode::Create => Err(object_store::Error::Generic {
                    store: "LocalFileSystem",
                    source: Box::new(io::Error::from_raw_os_error(1)),
                }),
                _ => self.0.put_opts(path, payload, options).await,
            }
        }
    }

    #[tokio::test]
    async fn put_create_works_on_a_disk_without_links() {
        let folder = tempfile::tempdir().unwrap();
        let plain = Location::parse(folder.path().join("a folder/epoch").to_str().unwrap()).unwrap();
        let location = Location { store: Arc::new(Around(NoLinks(LocalFileSystem::new()))), ..plain.clone() };
        assert!(put_create(&location, Bytes::from_static(b"one")).await.unwrap());
        assert!(!put_create(&location, Bytes::from_static(b"two")).await.unwrap());
        assert_eq!(plain.read().await.unwrap().unwrap().as_ref(), b"one");
    }

    #[tokio::test]
    async fn one_of_many_creators_wins_without_links() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse(folder.path().join("deep/epoch").to_str().unwrap()).unwrap();
        let attempts = (0..8u8).map(|i| create(&location, Bytes::from(vec![i; 1000])));
        let won = futures::future::try_join_all(attempts).await.unwrap();
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        let winner = won.iter().position(|won| *won).unwrap() as u8;
        assert_eq!(location.read().await.unwrap().unwrap(), vec![winner; 1000]);
        assert_eq!(std::fs::read_dir(folder.path().join("deep")).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn without_either_the_error_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epoch");
        let neither: Persist = |_, _| Err(io::Error::from_raw_os_error(22));
        assert!(create_by(&path, b"one", neither).is_err());
        assert!(!path.exists());
        assert!(create_by(&path, b"one", persist).unwrap());
        assert!(!create_by(&path, b"two", persist).unwrap());
    }
}
