//! What is audited.

use crate::corpus::manifest::Manifest;
use crate::plan::place::PlanKey;
use crate::quarantine::QuarantineRecord;

/// What a stage's steps are audited against.
#[derive(Debug, Clone, Copy)]
pub struct AuditSpec<'a> {
    /// The pinned corpus.
    pub manifest: &'a Manifest,
    /// Seed of the run and the stage.
    pub key: PlanKey,
    /// Slots of the run.
    pub slots: u32,
    /// Row groups a slot draws from at a time.
    pub window_row_groups: u32,
    /// Samples of a slot in a step.
    pub batch_per_slot: u32,
    /// Numbers of committed steps of the stage, ascending, after each of which the coverage is wanted. The
    /// last is where the audit ends.
    pub marks: &'a [u64],
    /// The rows that were met and not used, of all stages.
    pub quarantined: &'a [QuarantineRecord],
    /// Threads that share the work.
    pub threads: usize,
}
