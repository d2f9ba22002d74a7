//! The loader: batches of a range of steps for a range of slots, prepared ahead of the training step.

mod cache;
mod pipeline;
mod prepare;
mod reads;
mod statistics;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::corpus::columns::ColumnNames;
use crate::corpus::manifest::Manifest;
use crate::coverage::Coverage;
use crate::error::{DatasetError, Result};
use crate::image::transform::TrainTransform;
use crate::plan::{Plan, PlanKey, RowAddress};
use crate::quarantine::QuarantineRecord;
use crate::text::TextEncoder;

use cache::RowGroupCache;
use pipeline::Pipeline;
use prepare::Preparer;
use reads::{NextUses, Reads};
use statistics::Counters;
pub use statistics::LoaderStatistics;

/// Memory, threads and reads of a loader. They change no bit of its batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderSettings {
    /// Bytes held ahead of the training step: half for row groups as stored, half for prepared batches (at least one
    /// batch is always prepared). Row groups of the current window that do not fit are read again and again.
    pub prefetch_bytes: u64,
    /// Threads that decode and transform pictures.
    pub decode_threads: usize,
    /// Row groups read at the same time.
    pub read_concurrency: usize,
    /// Tries of a read, after those of the store's own client, before it counts as failed.
    pub read_attempts: u32,
    /// Reads in a hundred that may be asked for a second time when the first answer is slower than nearly all were; the
    /// first answer counts. 0: none. Files of this machine are never asked twice.
    pub hedged_percent: u32,
    /// Folder of a cache on a local disk for row groups of a store; empty: none. Processes of one machine may name the
    /// same folder: each uses a part of its own.
    pub disk_cache: String,
    /// Bytes that the disk cache of one process may hold; what the plan needs last is given up first.
    pub disk_cache_bytes: u64,
}

impl Default for LoaderSettings {
    fn default() -> Self {
        Self {
            prefetch_bytes: 256 << 20,
            decode_threads: 1,
            read_concurrency: 8,
            read_attempts: 5,
            hedged_percent: 10,
            disk_cache: String::new(),
            disk_cache_bytes: 64 << 30,
        }
    }
}

/// What a loader loads.
#[derive(Debug, Clone)]
pub struct LoaderSpec {
    /// The corpus.
    pub manifest: Arc<Manifest>,
    /// The order of its rows; made for `seed`, `stage` and `slots_total`.
    pub plan: Arc<Plan>,
    /// Column names.
    pub columns: ColumnNames,
    /// The slots to load.
    pub slots: Range<u32>,
    /// Samples of a slot in a step.
    pub batch_per_slot: u32,
    /// Slots of the whole run.
    pub slots_total: u32,
    /// First step to load.
    pub first_step: u64,
    /// Step after the last one to load.
    pub last_step: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Training stage.
    pub stage: u32,
    /// Crop, mirroring, normalisation.
    pub image: TrainTransform,
    /// Tokenizer and text length.
    pub text: Arc<TextEncoder>,
    /// Pictures with more pixels are not used.
    pub max_pixels: u64,
    /// Memory and threads.
    pub settings: LoaderSettings,
}

/// The batches of all loaded slots for one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepBatch {
    /// The step.
    pub step: u64,
    /// One batch a slot, ascending.
    pub slots: Vec<SlotBatch>,
    /// How long [`Loader::next`] waited for it.
    pub waited: Duration,
}

impl StepBatch {
    /// What the step's loaded slots add to the run's coverage.
    pub fn coverage(&self) -> Coverage {
        self.slots.iter().map(|slot| slot.coverage).sum()
    }
}

/// One slot's batch of `b` samples, pictures of side `S` and texts of `T` tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotBatch {
    /// The slot.
    pub slot: u32,
    /// Pictures `[b, 3, S, S]` in bytes; the device normalises them, as
    /// [`normalised`](crate::image::transform::normalised) does.
    pub pixels: Vec<u8>,
    /// Token ids `[b, T]`.
    pub ids: Vec<i32>,
    /// 1 for a token, 0 for padding, `[b, T]`.
    pub mask: Vec<i32>,
    /// Captions after cleaning.
    pub captions: Vec<String>,
    /// Global indices of the samples: `step * slots_total * b + slot * b + i`.
    pub samples: Vec<u64>,
    /// The rows used (of substitutes where rows were quarantined).
    pub addresses: Vec<RowAddress>,
    /// Their keys; empty where the file has none.
    pub keys: Vec<String>,
    /// What these samples and rows add to the run's coverage.
    pub coverage: Coverage,
    /// Rows met and not used.
    pub quarantined: Vec<QuarantineRecord>,
}

/// Prepares batches in the background: reads on a tokio runtime, decoding on threads of its own.
///
/// What [`Loader::next`] returns is a function of the [`LoaderSpec`] without its settings; and the batch of a slot at a
/// step is the same whichever slots and steps a loader was started for. Dropping the loader ends its threads and reads.
#[derive(Debug)]
pub struct Loader {
    pipeline: Pipeline,
}

impl Loader {
    /// Starts loading; `runtime` does the reading.
    ///
    /// # Errors
    /// [`DatasetError::Setting`] if the specification contradicts itself, [`DatasetError::Thread`] if no thread can be
    /// started or the disk cache's folder cannot be used.
    pub fn start(runtime: Handle, spec: LoaderSpec) -> Result<Self> {
        check(&spec)?;
        let counters = Arc::<Counters>::default();
        let last_window =
            spec.last_step.saturating_mul(u64::from(spec.batch_per_slot)) / spec.plan.part_rows();
        let uses = NextUses::new(Arc::clone(&spec.plan), spec.slots.clone(), last_window);
        let reads = Reads::open(&spec.settings, uses, Arc::clone(&counters))?;
        let cache = RowGroupCache::new(
            runtime,
            Arc::clone(&spec.manifest),
            spec.columns.clone(),
            &spec.settings,
            reads,
            Arc::clone(&counters),
        );
        Ok(Self { pipeline: Pipeline::start(Preparer::new(spec, cache, counters))? })
    }

    /// What was done so far, and where the time went.
    pub fn statistics(&self) -> LoaderStatistics {
        self.pipeline.totals()
    }

    /// The next step's batches, in order of steps. Blocks: for compute threads, not for tokio's.
    ///
    /// # Errors
    /// [`DatasetError::Deadline`] if they are not ready in time (calling again goes on waiting),
    /// [`DatasetError::Ended`] after the last step, and whatever stopped the preparation of this step: then every
    /// further call returns the same error.
    pub fn next(&self, deadline: Duration) -> Result<StepBatch> {
        let started = Instant::now();
        let (step, slots) = self.pipeline.next(deadline)?;
        Ok(StepBatch { step, slots, waited: started.elapsed() })
    }
}

/// Refuses a specification that contradicts itself.
fn check(spec: &LoaderSpec) -> Result<()> {
    let scale = spec.image.crop_scale;
    let key = PlanKey { seed: spec.seed, stage: spec.stage };
    let rules = [
        (
            spec.slots.start < spec.slots.end && spec.slots.end <= spec.slots_total,
            "the slots to load are not slots of the run",
        ),
        (
            spec.plan.slots() == spec.slots_total && spec.plan.key() == key,
            "the plan was made for other slots, seed or stage",
        ),
        (spec.plan.rows() == spec.manifest.rows(), "the plan was made for another manifest"),
        (spec.first_step <= spec.last_step, "the first step is behind the last"),
        (spec.batch_per_slot > 0, "a slot's batch must have at least one sample"),
        (spec.image.size > 0, "the picture size must be at least 1"),
        (
            0.0 < scale[0] && scale[0] <= scale[1] && scale[1] <= 1.0,
            "data.crop_scale must be two shares, 0 < low <= high <= 1",
        ),
        (spec.settings.decode_threads > 0, "loader.decode_threads must be at least 1"),
        (spec.settings.read_concurrency > 0, "loader.read_concurrency must be at least 1"),
        (spec.settings.read_attempts > 0, "loader.read_attempts must be at least 1"),
        (spec.settings.hedged_percent <= 100, "loader.hedged_percent must be at most 100"),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, complaint)) => Err(DatasetError::Setting(complaint.to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
