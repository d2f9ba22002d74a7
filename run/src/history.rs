//! The membership epochs of a run: one leader at a time, all slots dealt, steps in order but for roll-backs
//! that are explained.

pub mod damage;

use std::collections::BTreeSet;

use blip2_store::Location;

use crate::commit::CheckpointRecord;
use crate::epoch::{EpochRecord, Epochs};
use crate::{Result, RunError};

/// The epochs found.
#[derive(Debug)]
pub struct Found {
    /// Ascending.
    pub records: Vec<EpochRecord>,
    /// Epochs that were taken by coordinators who crashed before they said more, and whose place a later one
    /// took.
    pub torn: BTreeSet<u64>,
    /// Those that cannot be read, and why.
    pub problems: Vec<String>,
}

/// Reads all epochs; those that are damaged are named.
///
/// # Errors
/// The store fails.
pub async fn read(root: &Location) -> Result<Found> {
    let epochs = Epochs::new(root, String::new(), String::new());
    let mut found = Found { records: Vec::new(), torn: BTreeSet::new(), problems: Vec::new() };
    let numbers = epochs.numbers().await?;
    for number in numbers.iter().copied() {
        match epochs.read(number).await {
            Ok(Some(record)) if record.epoch == number => found.records.push(record),
            Ok(Some(record)) => {
                found.problems.push(format!("epoch {number}: its object is that of epoch {}", record.epoch));
            }
            Ok(None) => found.problems.push(format!("epoch {number}: its object is gone")),
            Err(RunError::Epoch { .. })
                if numbers.last() != Some(&number) && epochs.breaks_off(number).await? =>
            {
                found.torn.insert(number);
            }
            Err(error @ RunError::Epoch { .. }) => found.problems.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// What the epochs tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What does not fit together.
    pub problems: Vec<String>,
    /// Roll-backs that are explained.
    pub notes: Vec<String>,
}

/// Compares the epochs with each other and with the checkpoints; `torn` are those that nobody wrote to the
/// end, `saved` step and epoch of all checkpoints, damaged ones included.
pub fn check(
    epochs: &[EpochRecord],
    torn: &BTreeSet<u64>,
    checkpoints: &[CheckpointRecord],
    saved: &BTreeSet<(u64, u64)>,
    slots: u32,
) -> Checked {
    let taken: BTreeSet<u64> = epochs.iter().map(|record| record.epoch).chain(torn.iter().copied()).collect();
    let gap = taken.iter().zip(1..).find(|(epoch, wanted)| *epoch != wanted);
    let gap = gap.map(|(_, wanted)| format!("epoch {wanted}: its object is missing"));
    let mut problems: Vec<String> = gap.into_iter().collect();
    // Starts that failed before the first step may have been of another configuration.
    let begun = epochs.iter().rposition(|record| record.step == 0 && record.end.is_some());
    let own = &epochs[begun.map_or(0, |last| last + 1)..];
    problems.extend(own.iter().filter_map(|record| check_slots(record, slots)));
    problems.extend(check_leaders(epochs));
    problems.extend(checkpoints.iter().filter_map(|record| check_checkpoint(record, epochs)));
    let broken_off = |epoch: &u64| {
        format!(
            "epoch {epoch}: whoever took it crashed; its object breaks off, and a later one took its place"
        )
    };
    let mut checked = Checked { problems, notes: torn.iter().map(broken_off).collect() };
    checked.check_steps(epochs, saved);
    checked
}

/// Members hold all slots, each one once.
fn check_slots(record: &EpochRecord, slots: u32) -> Option<String> {
    if record.members.is_empty() {
        return None;
    }
    let mut next = 0;
    for member in &record.members {
        if member.first_slot != next || member.slot_count == 0 {
            return Some(format!("epoch {}: slot {next} is not dealt exactly once", record.epoch));
        }
        next += member.slot_count;
    }
    (next != slots).then(|| format!("epoch {}: {next} of {slots} slots are dealt", record.epoch))
}

/// A coordinator that another one followed is fenced off.
fn check_leaders(epochs: &[EpochRecord]) -> Option<String> {
    let mut followed: Vec<&str> = Vec::new();
    for pair in epochs.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if before.coordinator != after.coordinator {
            followed.push(&before.coordinator);
            if followed.contains(&after.coordinator.as_str()) {
                return Some(format!(
                    "epoch {}: it is led by coordinator {}, which another one had followed",
                    after.epoch, after.coordinator
                ));
            }
        }
    }
    None
}

impl Checked {
    /// Steps go on from epoch to epoch, but for roll-backs: a coordinator that begins may go back to a
    /// checkpoint; one that leads may when all who held the state are lost.
    fn check_steps(&mut self, epochs: &[EpochRecord], saved: &BTreeSet<(u64, u64)>) {
        for pair in epochs.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            if after.step >= before.step {
                continue;
            }
            let words = |why: &str| {
                format!("epoch {}: {why} from step {} to step {}", after.epoch, before.step, after.step)
            };
            let begins = after.coordinator != before.coordinator || before.members.is_empty();
            if after.end.is_some() {
                self.notes.push(words("all who held the state were lost, and the run ended: back"));
            } else if begins {
                self.notes.push(words("a coordinator began and went back"));
            } else if is_explained(before, after, saved) {
                self.notes.push(words("all who held the state were lost, and the run went back"));
            } else {
                self.problems.push(format!(
                    "epoch {}: it begins with step {}, the one before with {}, and nothing explains that",
                    after.epoch, after.step, before.step
                ));
            }
        }
    }
}

/// Whether a run may have gone back under one coordinator: it says so itself, or, in runs of versions that
/// did not, it went back to a checkpoint that was there.
fn is_explained(before: &EpochRecord, after: &EpochRecord, saved: &BTreeSet<(u64, u64)>) -> bool {
    if let Some(lost) = after.back_from {
        return lost >= before.step;
    }
    let mut earlier = saved.iter().filter(|(_, epoch)| *epoch < after.epoch);
    match after.step {
        // From the beginning, where nothing was saved.
        0 => earlier.next().is_none(),
        step => earlier.any(|(saved, _)| *saved == step),
    }
}

/// A checkpoint is of an epoch that had members, and of a step that this epoch did.
fn check_checkpoint(record: &CheckpointRecord, epochs: &[EpochRecord]) -> Option<String> {
    let name = &record.name;
    let Some(place) = epochs.iter().position(|epoch| epoch.epoch == record.epoch) else {
        return Some(format!("checkpoint {name}: there is no epoch {}", record.epoch));
    };
    let epoch = &epochs[place];
    if epoch.members.is_empty() {
        return Some(format!("checkpoint {name}: epoch {} had no members", record.epoch));
    }
    (record.step < epoch.step)
        .then(|| format!("checkpoint {name}: epoch {} begins with step {}", record.epoch, epoch.step))
}

#[cfg(test)]
mod tests {
    use crate::epoch::EpochMember;

    use super::*;

    fn epoch(epoch: u64, coordinator: &str, step: u64, shares: &[u32]) -> EpochRecord {
        let mut first_slot = 0;
        let members = (0..).zip(shares).map(|(id, slot_count)| {
            first_slot += slot_count;
            EpochMember {
                id,
                name: format!("w{id}"),
                first_slot: first_slot - slot_count,
                slot_count: *slot_count,
                device: String::new(),
            }
        });
        let members = members.collect();
        EpochRecord {
            epoch,
            coordinator: coordinator.into(),
            step,
            members,
            address: String::new(),
            back_from: None,
            end: None,
        }
    }

    #[test]
    fn a_history_of_faults_fits_and_what_does_not_is_named() {
        // Two workers, one is lost, the coordinator is followed by another, which goes back to a checkpoint.
        let good = [
            epoch(1, "a", 0, &[]),
            epoch(2, "a", 0, &[2, 2]),
            epoch(3, "a", 7, &[4]),
            epoch(4, "b", 5, &[]),
            epoch(5, "b", 5, &[1, 3]),
        ];
        let none = BTreeSet::new();
        let whole = BTreeSet::new();
        let checked = check(&good, &whole, &[], &none, 4);
        assert_eq!(checked.problems, Vec::<String>::new());
        assert_eq!(checked.notes, ["epoch 4: a coordinator began and went back from step 7 to step 5"]);
        let problem = |change: fn(&mut Vec<EpochRecord>)| {
            let mut epochs = good.to_vec();
            change(&mut epochs);
            let problems = check(&epochs, &whole, &[], &none, 4).problems;
            assert_eq!(problems.len(), 1, "{problems:?}");
            problems.into_iter().next().unwrap()
        };
        assert!(problem(|epochs| drop(epochs.remove(2))).contains("epoch 3: its object is missing"));
        assert!(problem(|epochs| epochs[4].members[1].slot_count = 2).contains("epoch 5: 3 of 4 slots"));
        assert!(problem(|epochs| epochs[4].members[1].first_slot = 0).contains("slot 1 is not dealt"));
        assert!(problem(|epochs| epochs[4].coordinator = "a".into()).contains("led by coordinator a"));
        assert!(problem(|epochs| epochs[1].step = 8).contains("begins with step 7, the one before with 8"));
    }

    #[test]
    fn a_start_that_failed_may_have_dealt_other_slots() {
        let end = |number: u64, step: u64| EpochRecord {
            end: Some("failed".into()),
            ..epoch(number, "a", step, &[])
        };
        let history = |step: u64| {
            [
                epoch(1, "a", 0, &[]),
                epoch(2, "a", 0, &[4, 4]),
                end(3, step),
                epoch(4, "b", step, &[]),
                epoch(5, "b", step, &[2, 2]),
            ]
        };
        let none = BTreeSet::new();
        let problems = |step: u64| check(&history(step), &none, &[], &BTreeSet::new(), 4).problems;
        assert_eq!(problems(0), Vec::<String>::new());
        assert!(problems(7)[0].contains("epoch 2: 8 of 4 slots"), "{:?}", problems(7));
    }

    #[test]
    fn a_roll_back_under_one_coordinator_needs_an_explanation() {
        let saved = BTreeSet::from([(50, 4)]);
        let history = |step: u64, back_from: Option<u64>| {
            let mut epochs = vec![
                epoch(1, "a", 0, &[]),
                epoch(2, "a", 0, &[2, 2]),
                epoch(3, "a", 20, &[4]),
                epoch(4, "a", 45, &[2, 2]),
                epoch(5, "a", 52, &[4]),
                epoch(6, "a", 55, &[4]),
                epoch(7, "a", step, &[4]),
            ];
            epochs[6].back_from = back_from;
            epochs
        };
        let outcome = |step, back_from, saved: &BTreeSet<(u64, u64)>| {
            let whole = BTreeSet::new();
            let Checked { problems, notes } = check(&history(step, back_from), &whole, &[], saved, 4);
            (problems.len(), notes.len())
        };
        let none = BTreeSet::new();
        // As versions before wrote it: to a checkpoint that is there.
        assert_eq!(outcome(50, None, &saved), (0, 1));
        // As it is written now, whatever became of the checkpoint.
        assert_eq!(outcome(50, Some(58), &none), (0, 1));
        // To nowhere, to before the checkpoint, from steps that were never reached, to one written later.
        assert_eq!(outcome(50, None, &none), (1, 0));
        assert_eq!(outcome(49, None, &saved), (1, 0));
        assert_eq!(outcome(0, None, &saved), (1, 0));
        assert_eq!(outcome(50, Some(51), &saved), (1, 0));
        assert_eq!(outcome(50, None, &BTreeSet::from([(50, 7)])), (1, 0));
        // Nothing was saved.
        assert_eq!(outcome(0, None, &none), (0, 1));
    }
}
