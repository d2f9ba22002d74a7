//! The audit of a stage: one pass over its plan, without the images, that says which rows the committed steps
//! use.

mod counters;
mod spec;
mod substitutes;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::coverage::Coverage;
use crate::error::{DatasetError, Result};
use crate::plan::place::{PartId, RowGroupId};
use crate::plan::sample_plan::Plan;

use counters::RowCounters;
use substitutes::Substitutes;

pub use counters::RowUses;
pub use spec::AuditSpec;
pub use substitutes::Substitution;

/// What the committed steps of a stage must have used.
#[derive(Debug, Clone, PartialEq)]
pub struct StageAudit {
    /// Coverage after each of the marks.
    pub coverage: Vec<Coverage>,
    /// How often the plan uses each row.
    pub uses: RowUses,
    /// Samples that used another row than the planned one.
    pub substitutions: Vec<Substitution>,
    /// Quarantined rows that do not fit the plan, in words.
    pub problems: Vec<String>,
}

/// Goes through the plan of a stage from its first step to the last mark.
///
/// The time is that of one BLAKE3 block a sample, the memory four bytes a row of the corpus.
///
/// # Errors
/// [`DatasetError::Setting`] if the plan's settings are impossible.
pub fn audit_stage(spec: &AuditSpec<'_>) -> Result<StageAudit> {
    if spec.batch_per_slot == 0 || !spec.marks.is_sorted() {
        return Err(DatasetError::Setting("an audit needs a batch and ascending marks".to_owned()));
    }
    let plan = Plan::new(spec.manifest, spec.key, spec.slots, spec.window_row_groups)?;
    let pass = Pass {
        plan: &plan,
        stage: spec.key.stage,
        batch: u64::from(spec.batch_per_slot),
        marks: spec.marks,
        counters: RowCounters::new(&plan),
        next_window: AtomicU64::new(0),
        found: Mutex::new(vec![Coverage::default(); spec.marks.len()]),
    };
    thread::scope(|scope| {
        for _ in 0..spec.threads.max(1) {
            scope.spawn(|| pass.work());
        }
    });
    let mut between = pass.found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let substitutes = Substitutes::find(&plan, spec);
    substitutes.correct(spec, &mut between);
    let mut total = Coverage::default();
    let coverage = between.into_iter().map(|more| {
        total += more;
        total
    });
    let positions = spec.marks.last().copied().unwrap_or_default() * u64::from(spec.batch_per_slot);
    Ok(StageAudit {
        coverage: coverage.collect(),
        uses: pass.counters.uses(&plan, positions),
        substitutions: substitutes.found,
        problems: substitutes.problems,
    })
}

/// The pass over all samples, shared by its threads.
struct Pass<'a> {
    plan: &'a Plan,
    stage: u32,
    /// Samples of a slot in a step.
    batch: u64,
    marks: &'a [u64],
    counters: RowCounters,
    next_window: AtomicU64,
    /// Coverage of the steps between each mark and the one before.
    found: Mutex<Vec<Coverage>>,
}

/// The samples of a part that are used up to a mark and not up to the one before.
struct Stretch {
    /// Index of the mark.
    mark: usize,
    /// Positions within the part.
    positions: Range<u64>,
}

impl Pass<'_> {
    /// A thread's life: windows, until none is left.
    fn work(&self) {
        let mut between = vec![Coverage::default(); self.marks.len()];
        let positions = self.marks.last().copied().unwrap_or_default() * self.batch;
        let windows = positions.div_ceil(self.plan.part_rows());
        loop {
            let window = self.next_window.fetch_add(1, Ordering::Relaxed);
            if window >= windows {
                break;
            }
            let stretches = self.stretches(window);
            for slot in 0..self.plan.slots() {
                self.part(PartId { window, slot }, &stretches, &mut between);
            }
        }
        let mut found = self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.iter_mut().zip(between).for_each(|(sum, more)| *sum += more);
    }

    /// How the marks cut a window's parts; all parts of a window alike.
    fn stretches(&self, window: u64) -> Vec<Stretch> {
        let rows = self.plan.part_rows();
        let start = window * rows;
        let within = |mark: u64| (mark * self.batch).clamp(start, start + rows) - start;
        let first = self.marks.partition_point(|mark| mark * self.batch <= start);
        let mut stretches = Vec::new();
        let mut from = 0;
        for (mark, steps) in self.marks.iter().enumerate().skip(first) {
            let to = within(*steps);
            stretches.push(Stretch { mark, positions: from..to });
            from = to;
            if to == rows {
                break;
            }
        }
        stretches
    }

    /// Counts the rows of a part, in the order in which they lie, and adds up their digests.
    fn part(&self, part: PartId, stretches: &[Stretch], between: &mut [Coverage]) {
        let order = self.plan.sequence().order_of_part(part);
        let first = part.window * self.plan.part_rows();
        let used = stretches.last().map_or(0, |stretch| stretch.positions.end);
        let mut offset = 0;
        for segment in self.plan.sequence().segments(part) {
            let RowGroupId { file, row_group } = self.plan.sequence().group(segment.group);
            let counters = self.counters.of(segment.group, segment.rows.clone());
            for (row, counter) in segment.rows.zip(counters) {
                let position = order.invert(offset);
                offset += 1;
                if position >= used {
                    continue;
                }
                counter.fetch_add(1, Ordering::Relaxed);
                let sample = self.sample(part.slot, first + position);
                let stretch = stretches.partition_point(|stretch| stretch.positions.end <= position);
                between[stretches[stretch].mark] += Coverage::of(self.stage, sample, (file, row_group, row));
            }
        }
    }

    /// The global index of the sample at `position` of a slot.
    fn sample(&self, slot: u32, position: u64) -> u64 {
        let (step, index) = (position / self.batch, position % self.batch);
        (step * u64::from(self.plan.slots()) + u64::from(slot)) * self.batch + index
    }
}

#[cfg(test)]
mod tests;
