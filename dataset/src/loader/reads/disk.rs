//! Row groups on a local disk, as read: within a limit of bytes, those the plan needs last given up first.
//!
//! A folder is used by one process at a time, which holds its lock; a second one takes the folder beside it.
//! Nothing in it is trusted: an entry is used only if its hash agrees, so that a crash or a bad disk costs a
//! read from the store.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use blip2_store::PinnedObject;
use bytes::Bytes;

use super::next_use::NextUses;
use super::read_for::ReadFor;
use crate::error::{DatasetError, Result};
use crate::plan::RowGroupId;

/// Processes that may share a folder.
const MOST_SHARERS: u32 = 256;
/// Ends of file names: whole entries, and those being written.
const ENTRY: &str = "rows";
const UNFINISHED: &str = "new";
/// Bytes of the hash in front of an entry.
const HASH: usize = 32;

/// What is kept: some ranges of one object, by a hash of its name, length, entity tag and the ranges.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DiskKey(String);

impl DiskKey {
    pub(crate) fn new(object: &PinnedObject, ranges: &[Range<u64>]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for text in [object.location().to_string().as_str(), object.tag().unwrap_or_default()] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        hasher.update(&object.bytes().to_le_bytes());
        for range in ranges {
            hasher.update(&range.start.to_le_bytes()).update(&range.end.to_le_bytes());
        }
        Self(hasher.finalize().to_hex()[..32].to_owned())
    }
}

/// The cache.
#[derive(Debug)]
pub(crate) struct DiskCache {
    folder: PathBuf,
    /// Locked for as long as this is open.
    _lock: File,
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    entries: BTreeMap<DiskKey, Entry>,
    used: u64,
    uses: NextUses,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Of the file.
    bytes: u64,
    /// The row group, once a read has named it: an entry of an earlier process that no one asks for goes
    /// first.
    row_group: Option<RowGroupId>,
    /// The last window it was read for.
    done: Option<u64>,
}

impl DiskCache {
    /// Takes `folder`, or a folder beside it if another process has it, with what is in it.
    ///
    /// # Errors
    /// [`DatasetError::Setting`] if the folder cannot be made, locked or listed.
    pub(crate) fn open(folder: &Path, limit: u64, uses: NextUses) -> Result<Self> {
        let refused = |error: io::Error| {
            let folder = folder.display();
            DatasetError::Setting(format!("loader.disk_cache = \"{folder}\" cannot be used: {error}"))
        };
        let (folder, lock) = take_folder(folder).map_err(refused)?;
        let entries = found_entries(&folder).map_err(refused)?;
        let used = entries.values().map(|entry| entry.bytes).sum();
        let state = Mutex::new(State { entries, used, uses });
        let cache = Self { folder, _lock: lock, limit, state };
        // The limit may have been lowered.
        let given_up = cache.lock().make_room(0, u64::MAX, limit).unwrap_or_default();
        cache.remove(&given_up);
        Ok(cache)
    }

    /// The plan has come to `window`.
    pub(crate) fn advance(&self, window: u64) {
        self.lock().uses.advance(window);
    }

    /// What was stored under a key, `bytes` long; `None` if it is not there or is damaged. Blocks.
    pub(crate) fn load(&self, key: &DiskKey, bytes: u64, wanted: ReadFor) -> Option<Bytes> {
        self.lock().entries.get_mut(key)?.used_for(wanted);
        let content = std::fs::read(self.path(key)).ok().map(Bytes::from);
        let content =
            content.filter(|content| content.len() as u64 == bytes + HASH as u64).and_then(|content| {
                let body = content.slice(HASH..);
                (blake3::hash(&body).as_bytes()[..] == content[..HASH]).then_some(body)
            });
        if content.is_none() {
            tracing::warn!(folder = %self.folder.display(), key = key.0, "an entry of the disk cache is damaged");
            self.forget(key);
        }
        content
    }

    /// Keeps what was read, unless everything kept is needed sooner. Blocks.
    pub(crate) fn store(&self, key: &DiskKey, content: &[Bytes], wanted: ReadFor) {
        let bytes = HASH as u64 + content.iter().map(|part| part.len() as u64).sum::<u64>();
        let mut state = self.lock();
        if state.entries.contains_key(key) {
            return;
        }
        let next = state.uses.next(wanted.row_group, Some(wanted.window));
        let Some(given_up) = state.make_room(bytes, next, self.limit) else { return };
        let mut entry = Entry { bytes, row_group: None, done: None };
        entry.used_for(wanted);
        state.entries.insert(key.clone(), entry);
        state.used += bytes;
        drop(state);
        self.remove(&given_up);
        if let Err(error) = self.write(key, content) {
            tracing::warn!(folder = %self.folder.display(), %error, "the disk cache cannot be written");
            self.forget(key);
        }
    }

    fn write(&self, key: &DiskKey, content: &[Bytes]) -> io::Result<()> {
        use io::Write as _;
        let unfinished = self.folder.join(format!("{}.{UNFINISHED}", key.0));
        let mut hasher = blake3::Hasher::new();
        content.iter().for_each(|part| {
            hasher.update(part);
        });
        let mut file = File::create(&unfinished)?;
        file.write_all(hasher.finalize().as_bytes())?;
        content.iter().try_for_each(|part| file.write_all(part))?;
        std::fs::rename(&unfinished, self.path(key))
    }

    /// An entry that is of no use.
    pub(crate) fn forget(&self, key: &DiskKey) {
        let mut state = self.lock();
        if let Some(entry) = state.entries.remove(key) {
            state.used -= entry.bytes;
        }
        drop(state);
        self.remove(std::slice::from_ref(key));
    }

    fn remove(&self, keys: &[DiskKey]) {
        for key in keys {
            // What is left behind is found, counted and given up by the next process.
            let _ = std::fs::remove_file(self.path(key));
        }
    }

    fn path(&self, key: &DiskKey) -> PathBuf {
        self.folder.join(format!("{}.{ENTRY}", key.0))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn used_for(&mut self, wanted: ReadFor) {
        self.row_group = Some(wanted.row_group);
        self.done = self.done.max(Some(wanted.window));
    }
}

impl State {
    /// Gives up entries, those needed last first, until `bytes` more fit; `None`, and nothing given up, if
    /// all are needed before `next`. The files are the caller's to remove.
    fn make_room(&mut self, bytes: u64, next: u64, limit: u64) -> Option<Vec<DiskKey>> {
        if bytes > limit {
            return None;
        }
        let needed = |entry: &Entry| entry.row_group.map_or(u64::MAX, |id| self.uses.next(id, entry.done));
        let mut by_need: Vec<_> =
            self.entries.iter().map(|(key, entry)| (needed(entry), key, entry.bytes)).collect();
        by_need.sort_unstable();
        let mut given_up = Vec::new();
        let mut used = self.used;
        while used + bytes > limit {
            let (needed, key, freed) = by_need.pop()?;
            if needed < next || (needed == next && next != u64::MAX) {
                return None;
            }
            used -= freed;
            given_up.push(key.clone());
        }
        given_up.iter().for_each(|key| {
            self.entries.remove(key);
        });
        self.used = used;
        Some(given_up)
    }
}

/// The first folder of `folder/0`, `folder/1`, … that no other process holds, and its lock.
fn take_folder(folder: &Path) -> io::Result<(PathBuf, File)> {
    for number in 0..MOST_SHARERS {
        let own = folder.join(number.to_string());
        std::fs::create_dir_all(&own)?;
        let lock = File::create(own.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => return Ok((own, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other(format!("{MOST_SHARERS} processes use it")))
}

/// What an earlier process left, without what it did not finish.
fn found_entries(folder: &Path) -> io::Result<BTreeMap<DiskKey, Entry>> {
    let mut entries = BTreeMap::new();
    for found in std::fs::read_dir(folder)? {
        let found = found?;
        let name = found.file_name().to_string_lossy().into_owned();
        match name.rsplit_once('.') {
            Some((key, ENTRY)) => {
                let bytes = found.metadata()?.len();
                entries.insert(DiskKey(key.to_owned()), Entry { bytes, row_group: None, done: None });
            }
            Some((_, UNFINISHED)) => std::fs::remove_file(found.path())?,
            _ => {}
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::{PartId, Plan, PlanKey};
    use crate::test_assets::manifest;

    const ROW_GROUPS: u32 = 12;
    const BODY: usize = 100;

    fn uses() -> (NextUses, Arc<Plan>) {
        let manifest = manifest(&[&[10; ROW_GROUPS as usize]]);
        let plan = Arc::new(Plan::new(&manifest, PlanKey { seed: 3, stage: 1 }, 1, 1).unwrap());
        let mut uses = NextUses::new(Arc::clone(&plan), 0..1, 1000);
        uses.advance(0);
        (uses, plan)
    }

    fn key(row_group: u32) -> DiskKey {
        DiskKey(format!("{row_group:032x}"))
    }

    fn body(row_group: u32) -> Bytes {
        vec![row_group as u8; BODY].into()
    }

    fn wanted(row_group: u32, window: u64) -> ReadFor {
        ReadFor { row_group: RowGroupId { file: 0, row_group }, window }
    }

    fn entry_bytes() -> u64 {
        (BODY + HASH) as u64
    }

    /// What the plan asks for, for so many windows; how often it was there.
    fn replay(cache: &DiskCache, plan: &Plan, windows: Range<u64>) -> usize {
        let mut hits = 0;
        for window in windows {
            cache.advance(window);
            for id in plan.row_groups_of_part(PartId { window, slot: 0 }) {
                let wanted = ReadFor { row_group: id, window };
                match cache.load(&key(id.row_group), BODY as u64, wanted) {
                    Some(found) => {
                        assert_eq!(found, body(id.row_group));
                        hits += 1;
                    }
                    None => cache.store(&key(id.row_group), &[body(id.row_group)], wanted),
                }
                assert!(cache.lock().used <= cache.limit);
            }
        }
        hits
    }

    /// The hits of Belady's rule over the same requests, with the whole future known.
    fn best_possible(plan: &Plan, windows: u64, room: usize) -> usize {
        let requests: Vec<_> = (0..windows)
            .flat_map(|window| plan.row_groups_of_part(PartId { window, slot: 0 }))
            .map(|id| id.row_group)
            .collect();
        let mut kept: Vec<u32> = Vec::new();
        let mut hits = 0;
        for (now, id) in requests.iter().enumerate() {
            if kept.contains(id) {
                hits += 1;
                continue;
            }
            kept.push(*id);
            if kept.len() > room {
                let next =
                    |id: &u32| requests[now + 1..].iter().position(|later| later == id).unwrap_or(usize::MAX);
                let last = (0..kept.len()).max_by_key(|index| next(&kept[*index])).unwrap();
                kept.remove(last);
            }
        }
        hits
    }

    #[test]
    fn what_is_needed_last_is_given_up_first() {
        let folder = tempfile::tempdir().unwrap();
        for room in [1usize, 4, 8, 12] {
            let (uses, plan) = uses();
            let path = folder.path().join(room.to_string());
            let cache = DiskCache::open(&path, room as u64 * entry_bytes(), uses).unwrap();
            let hits = replay(&cache, &plan, 0..300);
            let best = best_possible(&plan, 300, room);
            assert!(hits * 100 >= best * 97, "room for {room}: {hits} hits of {best}");
        }
    }

    #[test]
    fn entries_outlive_the_process_and_damaged_ones_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let open = |limit| DiskCache::open(folder.path(), limit, uses().0).unwrap();
        let cache = open(1 << 20);
        (0..4).for_each(|n| cache.store(&key(n), &[body(n).slice(..40), body(n).slice(40..)], wanted(n, 0)));
        let path = |n| cache.path(&key(n));
        let mut content = std::fs::read(path(1)).unwrap();
        content[50] ^= 1;
        std::fs::write(path(1), content).unwrap();
        std::fs::write(path(2), b"short").unwrap();
        std::fs::write(folder.path().join("0/unfinished.new"), b"x").unwrap();
        drop(cache);

        let cache = open(1 << 20);
        let load = |n| cache.load(&key(n), BODY as u64, wanted(n, 1));
        assert_eq!([0, 1, 2, 3, 4].map(|n| load(n).is_some()), [true, false, false, true, false]);
        assert_eq!(load(3), Some(body(3)));
        assert_eq!(cache.lock().used, 2 * entry_bytes());
        drop(cache);
        assert!(!folder.path().join("0/unfinished.new").exists());

        let cache = open(entry_bytes());
        assert_eq!(cache.lock().entries.len(), 1, "the limit was lowered");
        let files = std::fs::read_dir(folder.path().join("0")).unwrap().count();
        assert_eq!(files, 2, "the lock and one entry");
    }

    #[test]
    fn two_at_a_time_have_a_folder_each_and_a_bad_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let open = || DiskCache::open(folder.path(), 1 << 20, uses().0);
        let (first, second) = (open().unwrap(), open().unwrap());
        assert_ne!(first.folder, second.folder);
        drop((first, second));
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = DiskCache::open(&file, 1, uses().0).unwrap_err().to_string();
        assert!(error.contains("loader.disk_cache") && error.contains("file"), "{error}");
    }
}
