//! The loader: batches of a range of steps for a range of slots, prepared ahead of the training step.
//!
//! From the store upwards: `reads` asks for row groups, `cache` holds them in memory, `prepare` makes a
//! sample of a row, `pipeline` deals samples to threads and puts them into batches (`batch`).

mod batch;
mod cache;
mod pipeline;
mod prepare;
mod reads;
mod settings;
mod spec;
mod statistics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::error::Result;

pub use batch::{SlotBatch, StepBatch};
use cache::RowGroupCache;
use pipeline::Pipeline;
use prepare::Preparer;
use reads::{NextUses, Reads};
pub use settings::LoaderSettings;
pub use spec::LoaderSpec;
use statistics::Counters;
pub use statistics::LoaderStatistics;

/// Prepares batches in the background: reads on a tokio runtime, decoding on threads of its own.
///
/// What [`Loader::next`] returns is a function of the [`LoaderSpec`] without its settings; and the batch of a
/// slot at a step is the same whichever slots and steps a loader was started for. Dropping the loader ends
/// its threads and reads.
#[derive(Debug)]
pub struct Loader {
    pipeline: Pipeline,
}

impl Loader {
    /// Starts loading; `runtime` does the reading.
    ///
    /// # Errors
    /// [`Setting`](crate::error::DatasetError::Setting) if the specification contradicts itself,
    /// [`Thread`](crate::error::DatasetError::Thread) if no thread can be started or the disk cache's folder
    /// cannot be used.
    pub fn start(runtime: Handle, spec: LoaderSpec) -> Result<Self> {
        spec.check()?;
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
    /// [`Deadline`](crate::error::DatasetError::Deadline) if they are not ready in time (calling again goes
    /// on waiting), [`Ended`](crate::error::DatasetError::Ended) after the last step, and whatever stopped
    /// the preparation of this step: then every further call returns the same error.
    pub fn next(&self, deadline: Duration) -> Result<StepBatch> {
        let started = Instant::now();
        let (step, slots) = self.pipeline.next(deadline)?;
        Ok(StepBatch { step, slots, waited: started.elapsed() })
    }
}

#[cfg(test)]
mod tests;
