//! Row groups in memory: read on the runtime, decoded by whoever needs them first, dropped when room is
//! needed.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blip2_store::StorePool;
use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use super::reads::{ReadFor, Reads, ReadsFor};
use super::settings::LoaderSettings;
use super::statistics::Counters;
use crate::corpus::columns::{ColumnNames, RowGroup};
use crate::corpus::manifest::Manifest;
use crate::corpus::parquet_file::{EncodedRowGroup, ParquetFile};
use crate::error::{DatasetError, Result};
use crate::plan::RowGroupId;

/// Footers kept open.
const OPEN_FILES: usize = 128;

/// How long closing waits for reads that were told to stop.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// How often a waiting thread looks around, in case a notice was missed.
const WAIT_STEP: Duration = Duration::from_millis(500);

/// Row groups by their place in the corpus. Holds at most `budget` bytes, except for those in use.
#[derive(Debug)]
pub(super) struct RowGroupCache {
    runtime: Handle,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    manifest: Arc<Manifest>,
    files: FileTable,
    /// Reads at a time.
    permits: Semaphore,
    reads: Reads,
    counters: Arc<Counters>,
    budget: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<RowGroupId, Entry>,
    /// Sum of the entries' bytes.
    used: u64,
    clock: u64,
    tasks: JoinSet<()>,
    running: usize,
    closed: bool,
    warned: bool,
}

#[derive(Debug)]
struct Entry {
    content: Content,
    /// Memory held, or expected to be.
    bytes: u64,
    last_use: u64,
    /// Latest window known to need it.
    window: u64,
}

enum Content {
    Reading,
    Read(EncodedRowGroup),
    Decoding,
    Ready(Arc<RowGroup>),
    Failed(DatasetError),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reading => "Reading",
            Self::Read(_) => "Read",
            Self::Decoding => "Decoding",
            Self::Ready(_) => "Ready",
            Self::Failed(_) => "Failed",
        })
    }
}

impl RowGroupCache {
    pub(super) fn new(
        runtime: Handle,
        manifest: Arc<Manifest>,
        columns: ColumnNames,
        settings: &LoaderSettings,
        reads: Reads,
        counters: Arc<Counters>,
    ) -> Self {
        let shared = Shared {
            files: FileTable { columns, pool: Mutex::default(), open: Mutex::default() },
            manifest,
            permits: Semaphore::new(settings.read_concurrency.min(Semaphore::MAX_PERMITS)),
            reads,
            counters,
            budget: settings.prefetch_bytes / 2,
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Self { runtime, shared: Arc::new(shared) }
    }

    /// Starts reading what fits beside what `current_window` and later ones need; in order, until one does
    /// not fit.
    pub(super) fn prefetch(&self, wanted: impl IntoIterator<Item = (RowGroupId, u64)>, current_window: u64) {
        self.shared.reads.advance(current_window);
        let mut state = self.shared.lock();
        for (id, window) in wanted {
            if let Some(entry) = state.entries.get_mut(&id) {
                entry.window = entry.window.max(window);
                continue;
            }
            let bytes = self.shared.expected_bytes(id);
            state.make_room(bytes, self.shared.budget, Some(current_window));
            if state.used + bytes > self.shared.budget {
                return;
            }
            self.start(&mut state, id, bytes, window);
        }
    }

    /// The row group, after waiting for it if need be.
    ///
    /// # Errors
    /// What reading or decoding it failed with; [`DatasetError::Thread`] once the cache is closed.
    pub(super) fn get(&self, id: RowGroupId, window: u64) -> Result<Arc<RowGroup>> {
        let mut state = self.shared.lock();
        self.shared.count(state.entries.get(&id));
        loop {
            if state.closed {
                return Err(DatasetError::Thread { reason: "the loader was dropped".to_owned() });
            }
            state.clock += 1;
            let now = state.clock;
            let Some(entry) = state.entries.get_mut(&id) else {
                let bytes = self.shared.expected_bytes(id);
                state.make_room(bytes, self.shared.budget, None);
                self.start(&mut state, id, bytes, window);
                continue;
            };
            entry.window = entry.window.max(window);
            entry.last_use = now;
            match &entry.content {
                Content::Ready(group) => return Ok(Arc::clone(group)),
                Content::Failed(error) => return Err(error.clone()),
                Content::Reading | Content::Decoding => state = self.shared.wait(state),
                Content::Read(_) => {
                    let content = std::mem::replace(&mut entry.content, Content::Decoding);
                    drop(state);
                    state = self.shared.decode(id, content);
                }
            }
        }
    }

    /// Ends all reads and lets no one wait any longer.
    pub(super) fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.tasks.abort_all();
        self.shared.changed.notify_all();
        let deadline = Instant::now() + CLOSE_DEADLINE;
        while state.running > 0 && Instant::now() < deadline {
            state = self.shared.wait(state);
        }
    }

    fn start(&self, state: &mut State, id: RowGroupId, bytes: u64, window: u64) {
        state.clock += 1;
        let entry = Entry { content: Content::Reading, bytes, last_use: state.clock, window };
        state.entries.insert(id, entry);
        state.used += bytes;
        while state.tasks.try_join_next().is_some() {}
        state.running += 1;
        let guard = Running(Arc::clone(&self.shared));
        let read = async move {
            let read = AssertUnwindSafe(guard.0.read(ReadFor { row_group: id, window })).catch_unwind().await;
            let failed = |_| Err(DatasetError::Thread { reason: "reading a row group panicked".to_owned() });
            guard.0.store(
                id,
                match read.unwrap_or_else(failed) {
                    Ok(encoded) => Content::Read(encoded),
                    Err(error) => Content::Failed(error),
                },
            );
        };
        state.tasks.spawn_on(read, &self.runtime);
    }
}

/// Counts a read as over when it ends, however it ends.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, WAIT_STEP).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes note of how somebody finds what it has come for.
    fn count(&self, found: Option<&Entry>) {
        let counter = match found.map(|entry| &entry.content) {
            Some(Content::Ready(_)) => &self.counters.found_decoded,
            Some(Content::Reading | Content::Read(_) | Content::Decoding | Content::Failed(_)) => {
                &self.counters.found_coming
            }
            None => &self.counters.found_missing,
        };
        counter.add(1);
    }

    /// The row group's share of its file: what reading it is expected to hold.
    fn expected_bytes(&self, id: RowGroupId) -> u64 {
        let file = &self.manifest.files[id.file as usize];
        let rows: u64 = file.row_groups.iter().map(|rows| u64::from(*rows)).sum();
        let share = u128::from(file.bytes) * u128::from(file.row_groups[id.row_group as usize]);
        // At most the file's length.
        (share / u128::from(rows.max(1))) as u64
    }

    async fn read(&self, wanted: ReadFor) -> Result<EncodedRowGroup> {
        // The semaphore is never closed, and a permit that is not had only means less order.
        let _permit = self.permits.acquire().await;
        let number = wanted.row_group.file;
        let cell = self.files.cell(number);
        let file = cell.get_or_try_init(|| self.files.open(&self.manifest, number)).await?;
        file.fetch_through(wanted.row_group.row_group, &ReadsFor { reads: &self.reads, wanted }).await
    }

    fn store(&self, id: RowGroupId, content: Content) {
        if let Some(entry) = self.lock().entries.get_mut(&id) {
            entry.content = content;
        }
        self.changed.notify_all();
    }

    /// Decodes without the lock, which is held again when this returns.
    fn decode(&self, id: RowGroupId, content: Content) -> MutexGuard<'_, State> {
        let started = Instant::now();
        let decoded = match content {
            Content::Read(encoded) => match encoded.decode() {
                Ok(group) => Content::Ready(Arc::new(group)),
                Err(error) => Content::Failed(error),
            },
            other => other,
        };
        self.counters.parquet.add_time(started.elapsed());
        let mut state = self.lock();
        let State { entries, used, .. } = &mut *state;
        if let Some(entry) = entries.get_mut(&id) {
            if let Content::Ready(group) = &decoded {
                *used = *used - entry.bytes + group.bytes();
                entry.bytes = group.bytes();
            }
            entry.content = decoded;
        }
        self.changed.notify_all();
        state
    }
}

impl State {
    /// Drops decoded row groups, those of the earliest windows first, until `bytes` fit. With `needed_from`,
    /// those that this window or a later one needs stay.
    fn make_room(&mut self, bytes: u64, budget: u64, needed_from: Option<u64>) {
        while self.used + bytes > budget {
            let droppable = |(_, entry): &(&RowGroupId, &Entry)| {
                matches!(entry.content, Content::Ready(_))
                    && needed_from.is_none_or(|from| entry.window < from)
            };
            let oldest =
                self.entries.iter().filter(droppable).min_by_key(|(_, entry)| (entry.window, entry.last_use));
            let Some((id, entry)) = oldest.map(|(id, entry)| (*id, entry)) else { return };
            let newest = self.entries.values().map(|entry| entry.window).max().unwrap_or_default();
            if needed_from.is_none() && entry.window == newest && !self.warned {
                self.warned = true;
                tracing::warn!(
                    budget,
                    "the row groups of one window do not fit in memory and are read repeatedly: raise \
                     loader.prefetch_bytes or lower data.window_row_groups"
                );
            }
            self.used -= entry.bytes;
            self.entries.remove(&id);
        }
    }
}

/// Files whose footers have been read, the least recently used forgotten first.
#[derive(Debug)]
struct FileTable {
    columns: ColumnNames,
    pool: Mutex<StorePool>,
    open: Mutex<OpenFiles>,
}

#[derive(Debug, Default)]
struct OpenFiles {
    cells: BTreeMap<u32, (Arc<OnceCell<ParquetFile>>, u64)>,
    clock: u64,
}

impl FileTable {
    fn cell(&self, file: u32) -> Arc<OnceCell<ParquetFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clock += 1;
        let now = open.clock;
        if !open.cells.contains_key(&file) && open.cells.len() >= OPEN_FILES {
            let oldest = open.cells.iter().min_by_key(|(_, (_, used))| *used).map(|(file, _)| *file);
            oldest.map(|file| open.cells.remove(&file));
        }
        let (cell, used) = open.cells.entry(file).or_default();
        *used = now;
        Arc::clone(cell)
    }

    async fn open(&self, manifest: &Manifest, file: u32) -> Result<ParquetFile> {
        let entry = &manifest.files[file as usize];
        let location = self.pool.lock().unwrap_or_else(PoisonError::into_inner).parse(&entry.location)?;
        entry.open(location, &self.columns).await
    }
}
