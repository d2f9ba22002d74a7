//! What a process asked of the driver, and the file that tells it.

#![expect(clippy::disallowed_macros, reason = "a library under a foreign name has no log")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::settings::SETTINGS;

static RECORD: Mutex<Record> = Mutex::new(Record::new());

/// Counts of one process.
pub(crate) struct Record {
    /// Launches of each kernel.
    launches: BTreeMap<String, u64>,
    modules: BTreeSet<u64>,
    /// Modules that were loaded, whether or not they were loaded before.
    loads: u64,
    copies: [Copies; 3],
    waits: u64,
    /// The largest shared memory that a block was launched with, in bytes.
    most_shared: u32,
    in_use: BTreeMap<usize, usize>,
    bytes_in_use: usize,
    peak_bytes: usize,
    allocations: u64,
}

/// Copies in one direction.
#[derive(Clone, Copy)]
struct Copies {
    number: u64,
    bytes: u64,
}

/// From where to where bytes are copied.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    ToDevice,
    ToHost,
    OnDevice,
}

/// The record, also after a thread has panicked in it: its numbers stay what they were.
pub(crate) fn record() -> MutexGuard<'static, Record> {
    RECORD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    const fn new() -> Self {
        Self {
            launches: BTreeMap::new(),
            modules: BTreeSet::new(),
            loads: 0,
            copies: [Copies { number: 0, bytes: 0 }; 3],
            waits: 0,
            most_shared: 0,
            in_use: BTreeMap::new(),
            bytes_in_use: 0,
            peak_bytes: 0,
            allocations: 0,
        }
    }

    pub(crate) fn launched(&mut self, kernel: &str, shared_bytes: u32) {
        self.most_shared = self.most_shared.max(shared_bytes);
        match self.launches.get_mut(kernel) {
            Some(number) => *number += 1,
            None => drop(self.launches.insert(kernel.to_owned(), 1)),
        }
    }

    /// Launches so far.
    pub(crate) fn launches(&self) -> u64 {
        self.launches.values().sum()
    }

    pub(crate) fn copied(&mut self, direction: Direction, bytes: usize) {
        let copies = &mut self.copies[direction as usize];
        copies.number += 1;
        copies.bytes += bytes as u64;
    }

    /// The host waited for the card.
    pub(crate) fn waited(&mut self) {
        self.waits += 1;
    }

    /// Whether a card has room for `bytes` more.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes_in_use.saturating_add(bytes) <= SETTINGS.memory
    }

    /// Bytes of a card that nothing holds.
    pub(crate) fn free_bytes(&self) -> usize {
        SETTINGS.memory.saturating_sub(self.bytes_in_use)
    }

    pub(crate) fn allocated(&mut self, address: usize, bytes: usize) {
        self.in_use.insert(address, bytes);
        self.allocations += 1;
        self.bytes_in_use += bytes;
        self.peak_bytes = self.peak_bytes.max(self.bytes_in_use);
    }

    /// Start and end of every allocation.
    pub(crate) fn memory(&self) -> impl Iterator<Item = (usize, usize)> {
        self.in_use.iter().map(|(start, bytes)| (*start, start + bytes))
    }

    /// The size of what was allocated at `address` and is free now.
    pub(crate) fn freed(&mut self, address: usize) -> Option<usize> {
        let bytes = self.in_use.remove(&address)?;
        self.bytes_in_use -= bytes;
        Some(bytes)
    }

    /// Keeps a module under its hash, once for all processes.
    pub(crate) fn loaded(&mut self, ptx: &[u8]) {
        let mut hasher = DefaultHasher::new();
        ptx.hash(&mut hasher);
        let hash = hasher.finish();
        self.loads += 1;
        if !self.modules.insert(hash) {
            return;
        }
        let Some(folder) = &SETTINGS.folder else { return };
        let path = folder.join(format!("{hash:016x}.ptx"));
        let part = folder.join(format!("{hash:016x}.{}.part", std::process::id()));
        let written = std::fs::write(&part, ptx).and_then(|()| std::fs::rename(&part, &path));
        if let Err(error) = written {
            eprintln!("driver double: {}: {error}", path.display());
        }
    }

    /// Names are identifiers of kernels, which need no escapes.
    fn json(&self) -> String {
        let mut kernels = String::new();
        for (name, number) in &self.launches {
            let comma = if kernels.is_empty() { "" } else { "," };
            let _ = write!(kernels, "{comma}\"{name}\":{number}");
        }
        let [to_device, to_host, on_device] =
            self.copies.map(|copies| format!("{{\"copies\":{},\"bytes\":{}}}", copies.number, copies.bytes));
        format!(
            "{{\"launches\":{},\"modules\":{},\"loads\":{},\"waits\":{},\"most_shared_bytes\":{},\"allocations\":{},\"peak_bytes\":{},\
             \"to_device\":{to_device},\"to_host\":{to_host},\"on_device\":{on_device},\"kernels\":{{{kernels}}}}}\n",
            self.launches(),
            self.modules.len(),
            self.loads,
            self.waits,
            self.most_shared,
            self.allocations,
            self.peak_bytes,
        )
    }
}

/// Writes the counts when the process ends.
extern "C" fn write_counts() {
    let Some(folder) = &SETTINGS.folder else { return };
    let path = folder.join(format!("{}.json", std::process::id()));
    if let Err(error) = std::fs::write(&path, record().json()) {
        eprintln!("driver double: {}: {error}", path.display());
    }
}

/// The loader calls what lies in this section when the process exits.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = write_counts;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_counted() {
        let mut record = Record::new();
        record.launched("matmul", 64);
        record.launched("add", 0);
        record.launched("matmul", 32);
        record.copied(Direction::ToHost, 12);
        record.copied(Direction::ToHost, 4);
        record.allocated(512, 100);
        record.allocated(1024, 50);
        assert_eq!((record.freed(512), record.freed(512)), (Some(100), None));
        record.allocated(512, 20);
        record.loaded(b"ptx");
        record.loaded(b"ptx");
        let json = record.json();
        for part in [
            "\"launches\":3",
            "\"kernels\":{\"add\":1,\"matmul\":2}",
            "\"to_host\":{\"copies\":2,\"bytes\":16}",
            "\"to_device\":{\"copies\":0,\"bytes\":0}",
            "\"peak_bytes\":150",
            "\"most_shared_bytes\":64",
            "\"modules\":1,\"loads\":2",
        ] {
            assert!(json.contains(part), "no {part} in {json}");
        }
        assert!(record.has_room(SETTINGS.memory - 70) && !record.has_room(SETTINGS.memory - 69));
    }
}
