//! What a loader hands out.

use std::time::Duration;

use bytes::Bytes;

use crate::coverage::Coverage;
use crate::plan::RowAddress;
use crate::quarantine::QuarantineRecord;
use crate::text::Question;

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
    /// [`normalised`](blip2_images::transform::normalised) does. A step that is done again takes them again:
    /// they are shared, not copied.
    pub pixels: Bytes,
    /// Token ids `[b, T]`.
    pub ids: Vec<i32>,
    /// 1 for a token, 0 for padding, `[b, T]`.
    pub mask: Vec<i32>,
    /// Captions after cleaning; none where questions are read.
    pub captions: Vec<String>,
    /// Questions with their answers, where they are read: then the tokens are those of the questions.
    pub questions: Vec<Question>,
    /// Equal for rows that show one image; none where no ids were asked for.
    pub image_ids: Vec<u64>,
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
