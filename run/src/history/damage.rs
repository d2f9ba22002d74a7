//! Damaged checkpoints: those that the run passed over, and those that leave something unproved.

use std::collections::BTreeSet;

use crate::catalogue::{Damaged, Listing};
use crate::commit::CheckpointRecord;
use crate::epoch::EpochRecord;

/// What is wrong with a checkpoint.
pub fn words(damaged: &Damaged) -> String {
    format!("checkpoint {} is damaged: {}", damaged.name, damaged.reason)
}

/// Step and epoch of all checkpoints, damaged ones included.
pub fn saved(listing: &Listing) -> BTreeSet<(u64, u64)> {
    let damaged = listing.damaged.iter().filter_map(|damaged| place(&damaged.name));
    listing.valid.iter().map(|record| (record.step, record.epoch)).chain(damaged).collect()
}

/// Whether the run did without this checkpoint: a later one is whole, or the run was continued from before
/// it. One that the run ended with is missed by somebody.
pub fn is_passed_over(name: &str, newest: &CheckpointRecord, epochs: &[EpochRecord]) -> bool {
    let Some((step, epoch)) = place(name) else { return false };
    let went_back = |record: &EpochRecord| record.epoch > epoch && record.step < step && record.end.is_none();
    (newest.step, newest.epoch) > (step, epoch) || epochs.iter().any(went_back)
}

/// Step and epoch in a checkpoint's name.
fn place(name: &str) -> Option<(u64, u64)> {
    let (step, epoch) = name.split_once('-')?;
    Some((step.parse().ok()?, epoch.parse().ok()?))
}
