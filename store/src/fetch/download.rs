//! One file from a store to this machine's disk: continued where it was interrupted, hashed as it is written.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::{GetOptions, GetRange, ObjectStore as _};
use sha2::{Digest as _, Sha256};

use super::failure::{fetch_error, other_content};
use super::listing::RemoteFile;
use crate::error::{Result, StoreError};
use crate::retry::{Retries, is_transient};

/// Bytes asked for in one request, and how many such requests are under way.
const PIECE: u64 = 16 << 20;
const PIECES_AT_ONCE: usize = 4;
/// Tries of one piece, beyond the store's own.
const RETRIES: Retries = Retries { tries: 5, first_pause: Duration::from_millis(250) };
/// Digits of what tells the parts of different contents apart.
const TAG_DIGITS: usize = 8;

/// A file that is here now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDone {
    /// Path below the model's folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3, hex.
    pub blake3: String,
    /// Bytes that came over the network now.
    pub downloaded: u64,
}

/// Where a file goes.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    /// SHA-256 (hex) that it must have, where it is known.
    pub(crate) sha256: Option<String>,
}

/// A download of one file.
#[derive(Debug)]
pub(crate) struct Download<'a> {
    file: &'a RemoteFile,
}

/// A file that is being written, with its hashes so far.
struct Written {
    file: File,
    bytes: u64,
    blake3: blake3::Hasher,
    sha256: Option<Sha256>,
}

impl Written {
    /// Goes on with what is there; `limit` bytes at most are right.
    fn open(path: &Path, limit: u64, with_sha256: bool) -> std::io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        if file.metadata()?.len() > limit {
            file.set_len(0)?;
        }
        Self::read(file, with_sha256)
    }

    /// Hashes what is there.
    fn read(mut file: File, with_sha256: bool) -> std::io::Result<Self> {
        let mut written = Self {
            bytes: 0,
            blake3: blake3::Hasher::new(),
            sha256: with_sha256.then(Sha256::new),
            file: file.try_clone()?,
        };
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(written),
                count => written.hash(&buffer[..count]),
            }
        }
    }

    fn hash(&mut self, content: &[u8]) {
        self.bytes += content.len() as u64;
        self.blake3.update(content);
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(content);
        }
    }

    fn append(mut self, content: &[u8]) -> std::io::Result<Self> {
        self.file.write_all(content)?;
        self.hash(content);
        Ok(self)
    }
}

impl<'a> Download<'a> {
    pub(crate) fn new(file: &'a RemoteFile) -> Self {
        Self { file }
    }

    /// Downloads what is not there yet. A file that is there with the right length (and hash, where one is
    /// known) is kept.
    pub(crate) async fn into_file(self, target: Target) -> Result<FileDone> {
        let path = target.path.clone();
        let with_sha256 = target.sha256.is_some();
        if std::fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == self.file.bytes) {
            let there = self.on_disk(&path, move |path| Written::read(File::open(path)?, with_sha256)).await;
            let kept = there.and_then(|there| self.finished(&there, &target, 0));
            if kept.is_ok() {
                return kept;
            }
        }
        let part = self.part_of(&path);
        let bytes = self.file.bytes;
        let mut written = self
            .on_disk(&part, move |path| {
                std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
                Written::open(path, bytes, with_sha256)
            })
            .await?;
        let before = written.bytes;
        if written.bytes < self.file.bytes {
            written = self.fill(written, &part).await?;
        }
        let done = self.finished(&written, &target, written.bytes.saturating_sub(before));
        if done.is_err() {
            // What is there is not what was asked for: the next try begins anew.
            let _ = std::fs::remove_file(&part);
        }
        let done = done?;
        self.on_disk(&part, move |part| {
            written.file.sync_all()?;
            std::fs::rename(part, &path)
        })
        .await?;
        Ok(done)
    }

    /// The name under which a part of this very content is kept.
    pub(crate) fn part_of(&self, path: &Path) -> PathBuf {
        let identity = format!("{:?} {} {}", self.file.etag, self.file.bytes, self.file.location);
        let tag = blake3::hash(identity.as_bytes()).to_hex();
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.part", &tag[..TAG_DIGITS]));
        PathBuf::from(name)
    }

    fn finished(&self, written: &Written, target: &Target, downloaded: u64) -> Result<FileDone> {
        let location = self.file.location.to_string();
        if written.bytes != self.file.bytes {
            let reason = format!("{} bytes came of {}", written.bytes, self.file.bytes);
            return Err(fetch_error(&location, reason));
        }
        if let (Some(expected), Some(hasher)) = (&target.sha256, &written.sha256) {
            let found = hex(&hasher.clone().finalize());
            if !found.eq_ignore_ascii_case(expected) {
                return Err(other_content(&location, &format!("SHA-256 {expected}"), &found));
            }
        }
        let blake3 = written.blake3.finalize().to_hex().to_string();
        Ok(FileDone { name: self.file.name.clone(), bytes: written.bytes, blake3, downloaded })
    }

    async fn fill(&self, mut written: Written, part: &Path) -> Result<Written> {
        let (from, to) = (written.bytes, self.file.bytes);
        if from == 0 && to <= PIECE {
            return self.fill_at_once(written.sha256.is_some(), part).await;
        }
        let ranges = (from..to).step_by(PIECE as usize).map(|start| start..(start + PIECE).min(to));
        let mut pieces =
            futures::stream::iter(ranges.map(|range| self.piece(range))).buffered(PIECES_AT_ONCE);
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => written = self.on_disk(part, move |_| written.append(&piece)).await?,
                // A server without ranges gives the whole or nothing.
                Err(object_store::Error::Generic { .. } | object_store::Error::NotSupported { .. })
                    if written.bytes == from =>
                {
                    drop(pieces);
                    return self.fill_at_once(written.sha256.is_some(), part).await;
                }
                Err(error) => return Err(self.file.location.failed("read", &error)),
            }
        }
        Ok(written)
    }

    /// The whole file by one request, from its beginning.
    async fn fill_at_once(&self, with_sha256: bool, part: &Path) -> Result<Written> {
        let filling = |error: &Filling| {
            let error = crate::secret_url::redacted_text(&error.to_string());
            tracing::info!(file = %self.file.location, error, "begun anew");
        };
        let whole = RETRIES.run(|| self.stream_into(part, with_sha256), Filling::is_transient, filling).await;
        whole.map_err(|error| match error {
            Filling::Store(error) => self.file.location.failed("read", &error),
            Filling::Disk(error) => error,
        })
    }

    async fn stream_into(&self, part: &Path, with_sha256: bool) -> Result<Written, Filling> {
        let begun = self.on_disk(part, move |part| Written::open(part, 0, with_sha256)).await;
        let mut written = begun.map_err(Filling::Disk)?;
        let asked = self.file.location.store().get_opts(self.file.location.path(), self.options(None));
        let mut stream = asked.await.map_err(Filling::Store)?.into_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(Filling::Store)?;
            let longer = self.on_disk(part, move |_| written.append(&piece)).await;
            written = longer.map_err(Filling::Disk)?;
        }
        Ok(written)
    }

    /// One range of the file, asked for again where the connection breaks.
    async fn piece(&self, range: Range<u64>) -> Result<Bytes, object_store::Error> {
        RETRIES.run(|| self.ask_for(range.clone()), is_transient, |_| ()).await
    }

    async fn ask_for(&self, range: Range<u64>) -> Result<Bytes, object_store::Error> {
        let length = range.end - range.start;
        let (store, path) = (self.file.location.store(), self.file.location.path());
        let answer = store.get_opts(path, self.options(Some(range))).await?;
        if answer.meta.size != self.file.bytes {
            let source = format!("it has {} bytes now, {} before", answer.meta.size, self.file.bytes).into();
            return Err(object_store::Error::Precondition { path: self.file.name.clone(), source });
        }
        let piece = answer.bytes().await?;
        if piece.len() as u64 != length {
            return Err(object_store::Error::Generic {
                store: "download",
                source: "the answer is too short".into(),
            });
        }
        Ok(piece)
    }

    fn options(&self, range: Option<Range<u64>>) -> GetOptions {
        // A weak tag never matches in a conditional request.
        let strong = self.file.etag.clone().filter(|tag| !tag.starts_with("W/"));
        GetOptions { range: range.map(GetRange::Bounded), if_match: strong, ..GetOptions::default() }
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = path.to_path_buf();
        let done = tokio::task::spawn_blocking(move || work(&place)).await;
        let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        done.map_err(|error| StoreError::Fetch {
            location: self.file.location.to_string(),
            reason: format!("{}: {error}", path.display()),
        })
    }
}

/// What breaks off a file that is written as it comes.
#[derive(Debug, thiserror::Error)]
enum Filling {
    #[error(transparent)]
    Store(object_store::Error),
    #[error(transparent)]
    Disk(StoreError),
}

impl Filling {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if is_transient(error))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
