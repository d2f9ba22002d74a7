//! The membership epochs of a run: one leader at a time, all slots dealt, steps in order.

use blip2_coordinator::{CheckpointRecord, CoordinatorError, EpochRecord, Epochs};
use blip2_dataset::Location;

use crate::error::CliError;

/// The epochs found.
pub(super) struct Found {
    /// Ascending.
    pub(super) records: Vec<EpochRecord>,
    pub(super) problems: Vec<String>,
}

/// Reads all epochs; those that are damaged are named.
pub(super) async fn read(root: &Location) -> Result<Found, CliError> {
    let epochs = Epochs::new(root, String::new(), String::new());
    let mut found = Found { records: Vec::new(), problems: Vec::new() };
    for number in epochs.numbers().await? {
        match epochs.read(number).await {
            Ok(Some(record)) if record.epoch == number => found.records.push(record),
            Ok(Some(record)) => {
                found.problems.push(format!("epoch {number}: its object is that of epoch {}", record.epoch));
            }
            Ok(None) => found.problems.push(format!("epoch {number}: its object is gone")),
            Err(error @ CoordinatorError::Epoch { .. }) => found.problems.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// What does not fit together.
pub(super) fn check(epochs: &[EpochRecord], checkpoints: &[CheckpointRecord], slots: u32) -> Vec<String> {
    let numbers = epochs.iter().zip(1..).find(|(record, wanted)| record.epoch != *wanted);
    let gap = numbers.map(|(_, wanted)| format!("epoch {wanted}: its object is missing"));
    let mut problems: Vec<String> = gap.into_iter().collect();
    problems.extend(epochs.iter().filter_map(|record| check_slots(record, slots)));
    problems.extend(check_leaders(epochs));
    problems.extend(check_steps(epochs));
    problems.extend(checkpoints.iter().filter_map(|record| check_checkpoint(record, epochs)));
    problems
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

/// Under one coordinator steps only go on; one that begins may go back to a checkpoint.
fn check_steps(epochs: &[EpochRecord]) -> Vec<String> {
    let backwards = epochs.windows(2).filter(|pair| {
        let began = pair[0].members.is_empty() || pair[1].members.is_empty();
        !began && pair[0].coordinator == pair[1].coordinator && pair[1].step < pair[0].step
    });
    let named = |pair: &[EpochRecord]| {
        format!(
            "epoch {}: it begins with step {}, the one before with {}",
            pair[1].epoch, pair[1].step, pair[0].step
        )
    };
    backwards.map(named).collect()
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
    use blip2_coordinator::EpochMember;

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
            }
        });
        let members = members.collect();
        EpochRecord {
            epoch,
            coordinator: coordinator.into(),
            step,
            members,
            address: String::new(),
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
        assert_eq!(check(&good, &[], 4), Vec::<String>::new());
        let problem = |change: fn(&mut Vec<EpochRecord>)| {
            let mut epochs = good.to_vec();
            change(&mut epochs);
            let problems = check(&epochs, &[], 4);
            assert_eq!(problems.len(), 1, "{problems:?}");
            problems.into_iter().next().unwrap()
        };
        assert!(problem(|epochs| drop(epochs.remove(2))).contains("epoch 3: its object is missing"));
        assert!(problem(|epochs| epochs[4].members[1].slot_count = 2).contains("epoch 5: 3 of 4 slots"));
        assert!(problem(|epochs| epochs[4].members[1].first_slot = 0).contains("slot 1 is not dealt"));
        assert!(problem(|epochs| epochs[4].coordinator = "a".into()).contains("led by coordinator a"));
        assert!(problem(|epochs| epochs[1].step = 8).contains("begins with step 7, the one before with 8"));
    }
}
