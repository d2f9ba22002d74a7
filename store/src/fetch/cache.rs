//! What was fetched from URLs, kept on this machine's disk for every process that needs it.
//!
//! ```text
//! <cache>/models/<key>/content/…     the files
//!                      entry.json    what they are; written last, so that an entry with it is whole
//! <cache>/models/<key>.lock          exclusive while the entry is written or removed, shared while it is in use
//! ```
//!
//! The key is a hash of the URL (without credentials) and of each file's name, length and entity tag: content
//! that changes at its place is fetched anew, and what is here stays what it was.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::download::{Download, Target};
use super::failure::{fetch_error, other_content};
use super::hash::{hash_file, hash_of_files};
use super::listing::RemoteModel;
use crate::error::Result;
use crate::secret_url::redacted;

/// Environment variable with the cache's folder.
pub const CACHE_VARIABLE: &str = "BLIP2_CACHE";
/// Environment variable with the bytes that the cache may hold.
pub const CACHE_BYTES_VARIABLE: &str = "BLIP2_CACHE_BYTES";

/// Bytes that the cache may hold where nothing else is said.
const DEFAULT_BOUND: u64 = 256 << 30;
/// Between two looks whether another process is done with an entry.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Another process that writes an entry and gets no further for so long is given up.
const STANDSTILL: Duration = Duration::from_secs(1800);
/// Digits of an entry's key.
const KEY_DIGITS: usize = 32;

/// The entries that this process uses: their locks are held as long as it lives.
static IN_USE: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The file, or the folder with the files.
    pub path: PathBuf,
    /// BLAKE3 (hex) of the file; of a folder that of the lines `HASH  NAME` in the order of the names, as
    /// `b3sum` writes them. Empty for a path of this machine that was taken as it is.
    pub blake3: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that came over the network now.
    pub downloaded: u64,
}

/// The cache.
#[derive(Debug, Clone)]
pub(crate) struct ModelCache {
    root: PathBuf,
    bound: u64,
}

/// Ends the use of all entries by this process.
#[cfg(test)]
pub(crate) fn release_all() {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// What an entry holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    url: String,
    is_file: bool,
    blake3: String,
    files: Vec<EntryFile>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct EntryFile {
    name: String,
    bytes: u64,
    blake3: String,
    /// When it was last changed: one that was changed since is hashed again.
    changed: SystemTime,
}

/// The folder of what this machine's user keeps between processes: the one that [`CACHE_VARIABLE`] names,
/// else `blip2` in the user's cache folder.
pub fn cache_folder() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").map(|home| home.join(".cache"));
    let users = || variable("XDG_CACHE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir);
    variable(CACHE_VARIABLE).unwrap_or_else(|| users().join("blip2"))
}

impl ModelCache {
    /// The cache of this machine's user.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let bound = match std::env::var(CACHE_BYTES_VARIABLE) {
            Ok(text) => text.parse().map_err(|_| {
                fetch_error("", format!("{CACHE_BYTES_VARIABLE} = \"{text}\" is not a number of bytes"))
            })?,
            Err(_) => DEFAULT_BOUND,
        };
        Ok(Self { root: cache_folder().join("models"), bound })
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path, bound: u64) -> Self {
        Self { root: root.to_path_buf(), bound }
    }

    /// The model's path, after a download if need be.
    pub(crate) async fn get(&self, url: &str, model: RemoteModel, expected: Option<&str>) -> Result<Fetched> {
        let key = key_of(url, &model);
        let folder = self.root.join(&key);
        let on_disk = |error: io::Error| fetch_error(url, format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(&self.root).map_err(on_disk)?;
        let lock = self.lock_of(&key).map_err(on_disk)?;
        let mut standstill = Standstill::begin();
        let (entry, downloaded) = loop {
            if taken(lock.try_lock_shared()).map_err(on_disk)? {
                if let Some(entry) = whole_entry(&folder, false).await {
                    break (entry, 0);
                }
                lock.unlock().map_err(on_disk)?;
            }
            if taken(lock.try_lock()).map_err(on_disk)? {
                break match whole_entry(&folder, true).await {
                    // Another process was faster.
                    Some(entry) => (entry, 0),
                    None => {
                        self.make_room(&key, url, &model)?;
                        fill(&folder, url, &model).await?
                    }
                };
            }
            standstill.look(&folder).map_err(on_disk)?;
            tokio::time::sleep(LOOK_EVERY).await;
        };
        if let Some(expected) = expected.filter(|expected| *expected != entry.blake3) {
            return Err(other_content(url, expected, &entry.blake3));
        }
        lock.lock_shared().map_err(on_disk)?;
        Ok(Fetched { downloaded, ..taken_into_use(&folder, entry, lock) })
    }

    /// The entry of this URL that was used last, whatever lies there now.
    pub(crate) async fn known(&self, url: &str, expected: Option<&str>) -> Option<Fetched> {
        let wanted = redacted(url);
        let mut found: Vec<(SystemTime, String)> = Vec::new();
        for entry in std::fs::read_dir(&self.root).ok()?.flatten() {
            let used = std::fs::metadata(entry.path().join(ENTRY)).and_then(|found| found.modified());
            if let Ok(used) = used {
                found.push((used, entry.file_name().to_string_lossy().into_owned()));
            }
        }
        found.sort();
        for (_, key) in found.into_iter().rev() {
            let (folder, lock) = (self.root.join(&key), self.lock_of(&key).ok()?);
            if !taken(lock.try_lock_shared()).ok()? {
                continue;
            }
            let Some(entry) = whole_entry(&folder, false).await else { continue };
            let is_wanted = entry.url.trim_end_matches('/') == wanted.trim_end_matches('/');
            if is_wanted && expected.is_none_or(|expected| expected == entry.blake3) {
                return Some(taken_into_use(&folder, entry, lock));
            }
        }
        None
    }

    fn lock_of(&self, key: &str) -> io::Result<File> {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.root.join(format!("{key}.lock")))
    }

    /// Removes entries that nobody uses, those used longest ago first, until the model has room.
    fn make_room(&self, key: &str, url: &str, model: &RemoteModel) -> Result<()> {
        let needed: u64 = model.files().iter().map(|file| file.bytes).sum();
        if needed > self.bound {
            return Err(fetch_error(
                url,
                format!(
                    "its {needed} bytes are more than the {} that the cache may hold ({CACHE_BYTES_VARIABLE})",
                    self.bound
                ),
            ));
        }
        let mut others: Vec<(SystemTime, u64, String)> = Vec::new();
        for entry in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != key && entry.path().is_dir() {
                let used = std::fs::metadata(entry.path().join(ENTRY)).and_then(|found| found.modified());
                others.push((used.unwrap_or(SystemTime::UNIX_EPOCH), size_of(&entry.path()), name));
            }
        }
        others.sort();
        let mut held: u64 = others.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, name) in others {
            if held.saturating_add(needed) <= self.bound {
                break;
            }
            let Ok(lock) = self.lock_of(&name) else { continue };
            if lock.try_lock().is_ok() && std::fs::remove_dir_all(self.root.join(&name)).is_ok() {
                tracing::info!(entry = name, bytes, "removed from the cache");
                held -= bytes;
            }
        }
        if held.saturating_add(needed) > self.bound {
            tracing::warn!(
                held,
                needed,
                bound = self.bound,
                "all of the cache is in use; it grows beyond its bound"
            );
        }
        Ok(())
    }
}

const ENTRY: &str = "entry.json";
const CONTENT: &str = "content";

/// The entry's path; its lock, which is shared, is held from now on.
fn taken_into_use(folder: &Path, entry: Entry, lock: File) -> Fetched {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
    // Those used longest ago go first.
    if let Ok(record) = File::options().append(true).open(folder.join(ENTRY)) {
        #[expect(clippy::disallowed_methods, reason = "which entry of the cache goes first")]
        let _ = record.set_modified(SystemTime::now());
    }
    let content = folder.join(CONTENT);
    let bytes = entry.files.iter().map(|file| file.bytes).sum();
    let path = match entry.files.as_slice() {
        [file] if entry.is_file => content.join(&file.name),
        _ => content,
    };
    Fetched { path, blake3: entry.blake3, bytes, downloaded: 0 }
}

/// A hash of where the model is and of what it is.
fn key_of(url: &str, model: &RemoteModel) -> String {
    let mut text = format!("{}\n", redacted(url));
    for file in model.files() {
        text += &format!("{}\n{}\n{:?}\n", file.name, file.bytes, file.etag);
    }
    blake3::hash(text.as_bytes()).to_hex()[..KEY_DIGITS].to_owned()
}

/// Downloads into the entry's folder; the entry, and the bytes that came now.
async fn fill(folder: &Path, url: &str, model: &RemoteModel) -> Result<(Entry, u64)> {
    let on_disk = |error: io::Error| fetch_error(url, format!("{}: {error}", folder.display()));
    let total: u64 = model.files().iter().map(|file| file.bytes).sum();
    tracing::warn!(url = redacted(url), bytes = total, "downloading into the cache");
    let (mut files, mut downloaded) = (Vec::new(), 0);
    for file in model.files() {
        let path = folder.join(CONTENT).join(&file.name);
        let done = Download::new(file).into_file(Target { path: path.clone(), sha256: None }).await?;
        downloaded += done.downloaded;
        let changed = std::fs::metadata(&path).and_then(|found| found.modified()).map_err(on_disk)?;
        files.push(EntryFile { name: done.name, bytes: done.bytes, blake3: done.blake3, changed });
    }
    let is_file = matches!(model, RemoteModel::File(_));
    let blake3 = match files.as_slice() {
        [file] if is_file => file.blake3.clone(),
        files => hash_of_files(files.iter().map(|file| (file.name.clone(), file.blake3.clone())).collect()),
    };
    tracing::info!(url = redacted(url), blake3, "in the cache");
    let entry = Entry { url: redacted(url), is_file, blake3, files };
    let text = serde_json::to_vec_pretty(&entry).map_err(|error| on_disk(io::Error::other(error)))?;
    let unfinished = folder.join("entry.json.part");
    std::fs::write(&unfinished, text)
        .and_then(|()| std::fs::rename(&unfinished, folder.join(ENTRY)))
        .map_err(on_disk)?;
    Ok((entry, downloaded))
}

/// The entry if it is there and its files are what they were. What is not is removed where `repair` says so.
async fn whole_entry(folder: &Path, repair: bool) -> Option<Entry> {
    let folder = folder.to_path_buf();
    let looked = tokio::task::spawn_blocking(move || {
        let entry: Entry = serde_json::from_slice(&std::fs::read(folder.join(ENTRY)).ok()?).ok()?;
        let mut whole = true;
        for file in &entry.files {
            let path = folder.join(CONTENT).join(&file.name);
            if !is_whole(&path, file) {
                tracing::warn!(file = file.name, "was changed in the cache and is downloaded again");
                whole = false;
                if repair {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
        whole.then_some(entry)
    });
    looked.await.ok().flatten()
}

fn is_whole(path: &Path, file: &EntryFile) -> bool {
    let Ok(found) = std::fs::metadata(path) else { return false };
    let unchanged = found.modified().is_ok_and(|changed| changed == file.changed);
    found.len() == file.bytes && (unchanged || hash_file(path).is_ok_and(|hash| hash == file.blake3))
}

/// Whether a lock was taken.
fn taken(tried: Result<(), TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whoever writes an entry may take as long as it grows.
struct Standstill {
    size: u64,
    since: Instant,
}

impl Standstill {
    fn begin() -> Self {
        Self { size: 0, since: Instant::now() }
    }

    fn look(&mut self, folder: &Path) -> io::Result<()> {
        let size = size_of(folder);
        if size != self.size {
            *self = Self { size, since: Instant::now() };
        } else if self.since.elapsed() > STANDSTILL {
            return Err(io::Error::other(
                "another process holds this entry of the cache and gets no further",
            ));
        }
        Ok(())
    }
}

/// Bytes of all files in a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}
