//! What must hold in every run, each stated once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use blip2_proto::v1::CommittedStep;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Assignment, Commit, Coverage, Ledger, Quarantined, assignment};
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::EpochRecord;

use crate::corpus::{CORPUS, SLOTS, TOTAL, is_skipped};
use crate::store::{Checkpoint, Store};

/// Something that happened and that an invariant speaks about.
#[derive(Debug, Clone)]
pub(crate) enum Fact {
    /// A coordinator sends.
    Sent { coordinator: String, message: ToWorker },
    /// A coordinator begins to lead, from a checkpoint or from nothing.
    Began { coordinator: String, resume: Option<String> },
    /// A coordinator has stored a checkpoint.
    Stored { coordinator: String },
    /// A coordinator created an epoch.
    TookEpoch(EpochRecord),
    /// A coordinator reports a committed step.
    Reported { coordinator: String, step: CommittedStep },
    /// A coordinator hears that a member has done its part of a step.
    Done { epoch: u64, step: u64, address: String },
    /// A member has applied a step.
    Applied { step: u64, state: u64 },
    /// The coordinator's own check of its machine, or the simulated outside, found something wrong.
    Broken { what: &'static str, detail: String },
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The invariant.
    pub(crate) what: &'static str,
    /// What was seen.
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.detail)
    }
}

type Checked = Result<(), Violation>;

fn ensure(holds: bool, what: &'static str, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { what, detail: detail() }) }
}

/// No step is committed with two results, and none is skipped.
pub(crate) const COMMITTED_ONCE: &str = "no step is committed twice or skipped";
/// A step is committed only when all members of its epoch have reported it done.
pub(crate) const COMMITTED_BY_ALL: &str = "a committed step is reported by all its members";
/// Who speaks for an epoch has created it.
pub(crate) const ONE_LEADER: &str = "one leader an epoch";
/// The members of an epoch share the slots.
pub(crate) const SLOTS_PARTITIONED: &str = "slots are partitioned";
/// What a commit, a ledger and a checkpoint say to be used is what the plan says.
pub(crate) const COVERAGE_EXACT: &str = "coverage is exact";
/// The same for the rows that could not be used.
pub(crate) const QUARANTINE_EXACT: &str = "quarantine is exact";
/// What a commit, a ledger, a report and a checkpoint say to be skipped is what is not finite.
pub(crate) const SKIPS_EXACT: &str = "skipped steps are exact";
/// Every state is that of the fault-free run.
pub(crate) const STATE_EXACT: &str = "every state is the fault-free run's";
/// A run whose store has a checkpoint never begins without one.
pub(crate) const NEVER_AFRESH: &str = "no checkpoint is read as a fresh start";
/// Every run ends, and as it should.
pub(crate) const ENDS: &str = "every run ends done";
/// The coordinator's machine finds itself consistent.
pub(crate) const MACHINE: &str = "the machine is consistent";

/// Sees everything and judges it.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    /// Addresses of the members of every epoch assigned.
    worlds: BTreeMap<u64, BTreeSet<String>>,
    /// Whose reports of which step of which epoch were heard.
    done: BTreeMap<(u64, u64), BTreeSet<String>>,
    /// Steps committed so far.
    committed: BTreeSet<u64>,
    /// Values reported of each step.
    values: BTreeMap<u64, u64>,
    /// Coordinators that know of a checkpoint.
    know_checkpoints: BTreeSet<String>,
    /// Epochs that such a coordinator has begun: one that is stored only while an epoch is taken comes too
    /// late for it.
    elected_knowing: BTreeSet<u64>,
    /// The last step that each coordinator reported.
    reported: BTreeMap<String, u64>,
}

impl Observer {
    /// Judges a fact.
    pub(crate) fn see(&mut self, fact: &Fact, store: &Store) -> Checked {
        match fact {
            Fact::Sent { coordinator, message } => self.sent(coordinator, message, store),
            Fact::Began { coordinator, resume } => {
                if resume.is_some() {
                    self.know_checkpoints.insert(coordinator.clone());
                }
                Ok(())
            }
            Fact::Stored { coordinator } => {
                self.know_checkpoints.insert(coordinator.clone());
                Ok(())
            }
            Fact::TookEpoch(record) => {
                if self.know_checkpoints.contains(&record.coordinator) {
                    self.elected_knowing.insert(record.epoch);
                }
                let slots = record.members.iter().map(|member| (member.first_slot, member.slot_count));
                slots_partitioned(slots, record.members.is_empty())
            }
            Fact::Reported { coordinator, step } => self.reported(coordinator, step),
            Fact::Done { epoch, step, address } => {
                self.done.entry((*epoch, *step)).or_default().insert(address.clone());
                Ok(())
            }
            Fact::Applied { step, state } => state_is_reference(step + 1, *state),
            Fact::Broken { what, detail } => Err(Violation { what, detail: detail.clone() }),
        }
    }

    fn sent(&mut self, coordinator: &str, message: &ToWorker, store: &Store) -> Checked {
        let epoch = match message {
            ToWorker::Assignment(assignment) => assignment.epoch,
            ToWorker::Commit(commit) => commit.epoch,
            _ => return Ok(()),
        };
        let owner = store.epoch(epoch).map(|record| record.coordinator.as_str());
        ensure(owner == Some(coordinator), ONE_LEADER, || {
            format!("{coordinator} speaks for epoch {epoch}, which {owner:?} created")
        })?;
        match message {
            ToWorker::Assignment(assignment) => self.assigned(coordinator, assignment),
            ToWorker::Commit(commit) => self.commits(commit),
            _ => Ok(()),
        }
    }

    fn assigned(&mut self, coordinator: &str, assignment: &Assignment) -> Checked {
        let is_fresh = matches!(assignment.state, Some(assignment::State::Fresh(_)));
        ensure(!is_fresh || !self.elected_knowing.contains(&assignment.epoch), NEVER_AFRESH, || {
            format!("{coordinator} begins epoch {} afresh though it knows of a checkpoint", assignment.epoch)
        })?;
        let slots = assignment.members.iter().map(|member| (member.first_slot, member.slot_count));
        slots_partitioned(slots, false)?;
        let addresses = assignment.members.iter().map(|member| member.exchange_address.clone());
        self.worlds.insert(assignment.epoch, addresses.collect());
        let first = assignment.step;
        ensure(first == 0 || self.committed.contains(&(first - 1)), COMMITTED_ONCE, || {
            format!("step {first} is assigned before step {} is committed", first.wrapping_sub(1))
        })?;
        let Some(Ledger { step, coverage, skipped_steps, .. }) = &assignment.ledger else { return Ok(()) };
        ensure(
            skipped_steps.iter().all(|skipped| skipped < step && is_skipped(*skipped)),
            SKIPS_EXACT,
            || format!("a ledger of {step} steps names {skipped_steps:?} as skipped"),
        )?;
        ensure(*step == assignment.step, COVERAGE_EXACT, || {
            format!("an assignment of step {} has the ledger of step {step}", assignment.step)
        })?;
        coverage_is_reference(*step, coverage)
    }

    fn commits(&mut self, commit: &Commit) -> Checked {
        let step = commit.step;
        ensure(step == 0 || self.committed.contains(&(step - 1)), COMMITTED_ONCE, || {
            format!("step {step} is committed before step {}", step.wrapping_sub(1))
        })?;
        let world = self.worlds.get(&commit.epoch);
        let done = self.done.get(&(commit.epoch, step));
        let is_repetition = self.committed.contains(&step) && world != done;
        // A repetition asks for a part of a state that is there already.
        if !is_repetition {
            ensure(world.is_some() && world == done, COMMITTED_BY_ALL, || {
                format!(
                    "step {step} of epoch {}: {world:?} are its members, {done:?} reported it",
                    commit.epoch
                )
            })?;
        }
        self.committed.insert(step);
        ensure(commit.skipped == is_skipped(step), SKIPS_EXACT, || {
            format!("step {step} is committed as skipped: {}", commit.skipped)
        })?;
        coverage_is_reference(step + 1, &commit.coverage)?;
        if is_repetition { Ok(()) } else { rows_are_reference(step, &commit.quarantined) }
    }

    fn reported(&mut self, coordinator: &str, step: &CommittedStep) -> Checked {
        let index = step.step;
        let before = self.reported.insert(coordinator.to_owned(), index);
        ensure(before.is_none_or(|before| before < index), COMMITTED_ONCE, || {
            format!("{coordinator} reports step {index} after {before:?}")
        })?;
        ensure(step.skipped == is_skipped(index), SKIPS_EXACT, || {
            format!("step {index} is reported wrongly")
        })?;
        let bits = step.values.first().map_or(0, |value| value.value.to_bits());
        let known = *self.values.entry(index).or_insert(bits);
        ensure(known == bits, COMMITTED_ONCE, || format!("step {index} is reported with two values"))
    }

    /// Judges a checkpoint as it is stored.
    pub(crate) fn stored(record: &CheckpointRecord, found: &Checkpoint) -> Checked {
        for part in found.parts.values() {
            ensure(part.step == record.step, STATE_EXACT, || {
                format!("checkpoint {} has a part of step {}", record.name, part.step)
            })?;
            state_is_reference(part.step, part.state)?;
        }
        coverage_is_reference(record.step, &record.coverage.to_messages())?;
        ensure(
            record.skipped_steps.iter().copied().eq((0..record.step).filter(|step| is_skipped(*step))),
            SKIPS_EXACT,
            || format!("checkpoint {} names {:?} as skipped", record.name, record.skipped_steps),
        )?;
        ensure(found.quarantine.as_ref() == Some(CORPUS.quarantine(record.step)), QUARANTINE_EXACT, || {
            let (there, due) = (
                found.quarantine.as_ref().map_or(0, |list| list.len()),
                CORPUS.quarantine(record.step).len(),
            );
            format!("checkpoint {} lists {there} rows, {due} were met", record.name)
        })
    }

    /// Judges the end of a run that is done with this checkpoint.
    pub(crate) fn done(&self, checkpoint: &str, store: &Store) -> Checked {
        let found = store.committed().find(|(record, _)| record.name == checkpoint);
        let step = found.map(|(record, _)| record.step);
        ensure(step == Some(TOTAL), ENDS, || {
            format!("the last checkpoint, {checkpoint}, is of step {step:?}")
        })?;
        let all = self.committed.iter().copied().eq(0..TOTAL);
        ensure(all, COMMITTED_ONCE, || format!("the run is done with the steps {:?}", self.committed))
    }
}

fn slots_partitioned(slots: impl Iterator<Item = (u32, u32)>, may_be_empty: bool) -> Checked {
    let mut next = 0;
    for (first, count) in slots {
        ensure(first == next && count > 0, SLOTS_PARTITIONED, || {
            format!("{count} slots from {first}, not {next}")
        })?;
        next += count;
    }
    ensure(next == SLOTS || next == 0 && may_be_empty, SLOTS_PARTITIONED, || {
        format!("{next} of {SLOTS} slots")
    })
}

fn state_is_reference(step: u64, state: u64) -> Checked {
    let reference = CORPUS.state(step);
    ensure(reference == Some(state), STATE_EXACT, || {
        format!("after {step} steps {state:#x}, not {reference:#x?}")
    })
}

fn coverage_is_reference(step: u64, coverage: &[Coverage]) -> Checked {
    let due = CORPUS.coverage(step.min(TOTAL));
    let named: BTreeMap<u32, (u64, &[u8])> = coverage
        .iter()
        .filter(|entry| entry.samples > 0)
        .map(|entry| (entry.stage, (entry.samples, entry.digest.as_slice())))
        .collect();
    let is_same = named.len() == due.len()
        && due.iter().all(|(stage, due)| {
            named.get(stage).is_some_and(|(samples, digest)| {
                *samples == due.samples && *digest == due.digest.to_le_bytes().as_slice()
            })
        });
    ensure(is_same, COVERAGE_EXACT, || format!("after {step} steps {named:?}, not {due:?}"))
}

fn rows_are_reference(step: u64, rows: &[Quarantined]) -> Checked {
    let mut found: Vec<(u32, u64, u32, u32, &str)> =
        rows.iter().map(|row| (row.stage, row.sample, row.row_group, row.row, row.file.as_str())).collect();
    found.sort_unstable();
    let (before, after) = (CORPUS.quarantine(step), CORPUS.quarantine((step + 1).min(TOTAL)));
    let mut due: Vec<(u32, u64, u32, u32, &str)> = after
        .iter()
        .filter(|row| !before.iter().any(|earlier| earlier == *row))
        .map(|row| (row.stage, row.sample, row.row_group, row.row, row.file.as_str()))
        .collect();
    due.sort_unstable();
    ensure(found == due, QUARANTINE_EXACT, || format!("step {step} names the rows {found:?}, not {due:?}"))
}
