//! Checkpoints in the making.

use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Commit, PartFailed, PartWritten, Quarantined};
use blip2_run::commit::{CheckpointRecord, ShardRecord};
use blip2_run::layout::is_shard_name;

use super::interface::{Action, StoreFailure};
use super::phase::{AfterElection, Phase};
use super::save::{Part, Save};
use super::state::{Checkpoint, Machine};

/// Checkpoints being written at a time; more are not begun for the cadence's sake.
const MOST_SAVES: usize = 2;
/// Seconds until a checkpoint that could not be stored is tried again, doubled with each failure in a row.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn save_is_due(&self) -> bool {
        let overdue = self.overdue_save.is_some_and(|from| self.now >= from);
        let wanted = (self.cadence_is_due() && self.overdue_save.is_none() || overdue)
            && self.saves.len() < MOST_SAVES;
        wanted || self.schedule.is_stage_end(self.committed) || self.stopping.is_some()
    }

    /// Whether the committed state ends a stage and is neither saved nor being saved: a coordinator or a
    /// member was lost over it.
    pub(super) fn lacks_stage_end(&self) -> bool {
        self.schedule.is_stage_end(self.committed)
            && !self.is_saved()
            && !self.saves.values().any(|save| save.record.step == self.committed)
    }

    /// Commits `step` to all members; with `saves` they write their parts of a checkpoint.
    pub(super) fn order_save(&mut self, step: u64, saves: bool, rows: Vec<Quarantined>) {
        let mut name = String::new();
        if saves {
            let save = self.new_save(step);
            name.clone_from(&save.record.name);
            self.saves.insert(name.clone(), save);
            self.overdue_save = None;
            self.cost.begin(self.now);
        }
        let commit = Commit {
            epoch: self.epoch,
            step,
            save_checkpoint: name,
            part_index: 0,
            part_count: self.world.len() as u32,
            coverage: self.coverage.to_messages(),
            quarantined: rows,
            durable_step: self.saved_step(),
            skipped: self.skipped.contains(&step),
            record: self.records.of(step),
            recorded_steps: self.records.kept(),
        };
        let ids: Vec<u32> = self.world.iter().map(|(id, _)| *id).collect();
        for (part_index, id) in (0..).zip(ids) {
            self.send(id, ToWorker::Commit(Commit { part_index, ..commit.clone() }));
        }
    }

    fn new_save(&self, step: u64) -> Save {
        let mut record = CheckpointRecord::new(&self.schedule, step + 1, self.epoch);
        record.run_id.clone_from(&self.spec.run_id);
        record.config_hash.clone_from(&self.spec.config_hash);
        record.manifest_hash.clone_from(&self.spec.manifest_hash);
        record.coverage.clone_from(&self.coverage);
        record.skipped_steps = self.skipped.range(..=step).copied().collect();
        let finite = self.progress.values.iter().filter(|value| value.value.is_finite());
        record.values = finite.map(|value| (value.name.clone(), value.value)).collect();
        Save {
            record,
            parts: self.world.iter().map(|(id, _)| (*id, Part::Awaited)).collect(),
            until: self.now + self.settings.step_deadline(),
            stall: 0.0,
            seconds: 0.0,
        }
    }

    pub(super) fn part_written(&mut self, id: u32, part: PartWritten) {
        let name = part.checkpoint;
        let Some(save) = self.saves.get_mut(&name) else { return };
        let Some(place) = save.awaited_of(id) else { return };
        if !is_shard_name(&part.part) {
            return self.expel(id, "it named a checkpoint part in a way that is no object name");
        }
        *place = Part::Written(ShardRecord { name: part.part, length: part.length, blake3: part.blake3 });
        save.stall = save.stall.max(part.stall_seconds);
        save.seconds = save.seconds.max(part.seconds);
        if let Some(member) = self.members.get_mut(&id) {
            member.part_failures = 0;
        }
        self.part_is_settled(&name);
    }

    /// When no part is awaited any more: writes the COMMIT, or gives the checkpoint up.
    fn part_is_settled(&mut self, name: &str) {
        let Some(save) = self.saves.get_mut(name) else { return };
        if save.parts.iter().any(|(_, part)| part.is_awaited()) {
            return;
        }
        let failed = save.failed();
        if let Some((id, reason)) = failed.first() {
            let why = format!("worker {id} cannot store its part: {reason}");
            if failed.len() == save.parts.len() {
                return self.save_failed(name, &why);
            }
            // The store is well: it is between some members and it.
            self.abandon(name, &why);
            self.parts_failed(&failed);
            if matches!(self.phase, Phase::Saving { .. }) {
                self.go_on_saving();
            }
            return;
        }
        let written = |(_, part): &(u32, Part)| match part {
            Part::Written(part) => Some(part.clone()),
            Part::Awaited | Part::Failed(_) => None,
        };
        save.record.parts = save.parts.iter().filter_map(written).collect();
        save.until = self.now + self.settings.step_deadline();
        self.cost.measured(save.stall, save.seconds);
        self.spending.stalled(save.stall);
        let record = Box::new(save.record.clone());
        let in_progress = self.saves.keys().filter(|other| *other != name).cloned().collect();
        self.store_quarantine();
        let quarantine = self.rows_until(record.step);
        self.actions.push(Action::StoreCommit { record, quarantine, epoch: self.epoch, in_progress });
    }

    pub(super) fn part_failed(&mut self, id: u32, part: PartFailed) {
        let Some(save) = self.saves.get_mut(&part.checkpoint) else { return };
        if let Some(place) = save.awaited_of(id) {
            *place = Part::Failed(part.reason);
            self.part_is_settled(&part.checkpoint);
        }
    }

    pub(super) fn commit_stored(&mut self, name: &str, result: Result<(), StoreFailure>) {
        match result {
            Ok(()) => {}
            Err(StoreFailure::Fenced(reason)) => return self.fenced(reason),
            Err(StoreFailure::Failed(reason)) if self.saves.contains_key(name) => {
                return self.save_failed(name, &format!("its COMMIT cannot be written: {reason}"));
            }
            Err(StoreFailure::Failed(_)) => return,
        }
        let Some(save) = self.saves.remove(name) else { return };
        tracing::info!(checkpoint = name, "a checkpoint is complete");
        self.save_failures = 0;
        self.counted.saved(self.now);
        let record = save.record;
        if self.last_checkpoint.as_ref().is_none_or(|newest| newest.step <= record.step) {
            self.last_checkpoint =
                Some(Checkpoint { name: record.name, step: record.step, coverage: record.coverage });
        }
        if matches!(self.phase, Phase::Saving { .. }) {
            self.go_on_saving();
        }
    }

    /// A checkpoint could not be stored: another is tried later, or the run ends.
    fn save_failed(&mut self, name: &str, why: &str) {
        self.save_failures += 1;
        let (failures, most) = (self.save_failures, self.checkpoints.max_failures);
        self.abandon(name, why);
        if failures >= most {
            return self.fail(
                1,
                format!("{failures} checkpoints in a row could not be stored; the last: {name}: {why}"),
            );
        }
        let retry = self.now + RETRY_AFTER * 2u32.saturating_pow(failures.min(6) - 1);
        self.overdue_save = Some(retry);
        if let Phase::Saving { retry: at } = &mut self.phase {
            *at = Some(retry);
        }
    }

    /// Whether a part of a checkpoint is awaited of a member.
    pub(super) fn must_still_save(&self, id: u32) -> bool {
        self.saves.values().any(|save| save.awaits(id))
    }

    pub(super) fn abandon_saves_of(&mut self, id: u32) {
        let awaits = self.saves.iter().filter(|(_, save)| save.awaits(id));
        let names: Vec<String> = awaits.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.abandon(&name, &format!("worker {id} is gone before its part was written"));
        }
    }

    fn abandon(&mut self, name: &str, why: &str) {
        self.saves.remove(name);
        self.overdue_save = Some(self.now);
        self.fault(format!("checkpoint {name} is abandoned: {why}"));
    }

    /// Moves the deadlines of all saves.
    pub(super) fn put_off_saves(&mut self, by: Duration) {
        self.saves.values_mut().for_each(|save| save.until += by);
    }

    pub(super) fn check_saves(&mut self) {
        let late: Vec<String> = self
            .saves
            .iter()
            .filter(|(_, save)| self.now >= save.until)
            .map(|(name, _)| name.clone())
            .collect();
        for name in late {
            if !self.is_ended() {
                self.save_failed(&name, "it was not written in time");
            }
        }
    }

    /// In [`Phase::Saving`]: concludes, waits on, or tries again.
    pub(super) fn go_on_saving(&mut self) {
        if matches!(self.phase, Phase::Saving { retry: Some(_) }) {
            // Its time comes.
        } else if self.is_saved() {
            self.conclude();
        } else if !self.saves.values().any(|save| save.record.step == self.committed) {
            self.save_last();
        }
    }

    pub(super) fn is_saved(&self) -> bool {
        self.saved_step() == self.committed
    }

    /// Writes a checkpoint of the committed state with those who hold it, then concludes.
    pub(super) fn save_last(&mut self) {
        self.move_ahead();
        if self.is_saved() {
            return self.conclude();
        }
        let holders: Vec<u32> = self.ready().filter(|id| self.is_holder(*id)).collect();
        if holders.is_empty() {
            return self.nothing_to_save();
        }
        self.last_saves += 1;
        if self.last_saves > self.settings.max_redo {
            let attempts = self.settings.max_redo;
            return self.fail(1, format!("the last checkpoint could not be written in {attempts} attempts"));
        }
        self.elect(&holders, AfterElection::Save);
    }

    /// Nobody is there who holds the committed state: they may come back; else it is lost.
    fn nothing_to_save(&mut self) {
        self.world.clear();
        if !self.is_grace_over() {
            return self.wait_for_others();
        }
        self.set_back();
        if self.is_saved() && self.stopping.is_some() { self.conclude() } else { self.regroup() }
    }
}
