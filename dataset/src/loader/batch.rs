//! What a loader hands out.

use std::time::Duration;

use crate::coverage::Coverage;
use crate::plan::RowAddress;
use crate::quarantine::QuarantineRecord;

/// The batches of all loaded slots for one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepBatch {
    /// The step.
    pub step: u64,
    /// One batch a slot, ascending.
    pub slots: Vec<SlotBatch>,
    /// How long [`Loader::next`](super::Loader::next) waited for it.
    pub waited: Duration,
}

impl StepBatch {
    /// What the step's loaded slots add to the run's coverage.
    pub fn coverage(&self) -> Coverage {
        self.slots.iter().map(|slot| slot.coverage).sum()
    }
}

/// One slot's batch of `b` samples, images of side `S` and texts of `T` tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotBatch {
    /// The slot.
    pub slot: u32,
    /// Images `[b, 3, S, S]` in bytes; the device normalises them, as
    /// [`normalised`](blip2_images::transform::normalised) does.
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
