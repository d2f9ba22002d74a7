//! Checkpoints in the making.

use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Commit, PartWritten};

use super::{Action, AfterElection, Machine, Phase, StoreFailure};
use crate::catalogue::{checkpoint_name, is_part_name};
use crate::{CheckpointRecord, PartRecord};

/// Checkpoints being written at a time; more are not begun for the cadence's sake.
const MOST_SAVES: usize = 2;

/// A checkpoint of which parts are awaited, or whose COMMIT is being written.
#[derive(Debug)]
pub(super) struct Save {
    record: CheckpointRecord,
    /// Member and part, by part index.
    parts: Vec<(u32, Option<PartRecord>)>,
    until: Duration,
}

impl Machine {
    pub(super) fn save_is_due(&self) -> bool {
        let every = self.checkpoints.every_steps;
        let by_cadence = every > 0 && self.committed.is_multiple_of(every) && self.saves.len() < MOST_SAVES;
        let overdue = self.save_is_overdue && self.saves.len() < MOST_SAVES;
        by_cadence || overdue || self.schedule.is_stage_end(self.committed) || self.stopping.is_some()
    }

    /// Commits `step` to all members; with `saves` they write their parts of a checkpoint.
    pub(super) fn order_save(&mut self, step: u64, saves: bool) {
        let mut name = String::new();
        if saves {
            let mut record = CheckpointRecord::new(step + 1, self.schedule.stage_of(step), self.epoch);
            record.run_id.clone_from(&self.spec.run_id);
            record.config_hash.clone_from(&self.spec.config_hash);
            record.manifest_hash.clone_from(&self.spec.manifest_hash);
            let finite = self.progress.values.iter().filter(|value| value.value.is_finite());
            record.values = finite.map(|value| (value.name.clone(), value.value)).collect();
            name = checkpoint_name(step + 1, self.epoch);
            let save = Save {
                record,
                parts: self.world.iter().map(|(id, _)| (*id, None)).collect(),
                until: self.now + self.settings.step_deadline(),
            };
            self.saves.insert(name.clone(), save);
            self.save_is_overdue = false;
        }
        let part_count = self.world.len() as u32;
        let commits: Vec<(u32, Commit)> = (0..)
            .zip(&self.world)
            .map(|(part_index, (id, _))| {
                let save_checkpoint = name.clone();
                (
                    *id,
                    Commit {
                        epoch: self.epoch,
                        step,
                        save_checkpoint,
                        part_index,
                        part_count,
                        ..Commit::default()
                    },
                )
            })
            .collect();
        for (id, commit) in commits {
            self.send(id, ToWorker::Commit(commit));
        }
    }

    pub(super) fn part_written(&mut self, id: u32, part: PartWritten) {
        let name = part.checkpoint;
        let Some(save) = self.saves.get_mut(&name) else { return };
        let Some((_, place)) = save.parts.iter_mut().find(|(member, place)| *member == id && place.is_none())
        else {
            return;
        };
        if !is_part_name(&part.part) {
            return self.expel(id, "it named a checkpoint part in a way that is no object name");
        }
        *place = Some(PartRecord { name: part.part, length: part.length, blake3: part.blake3 });
        if save.parts.iter().any(|(_, part)| part.is_none()) {
            return;
        }
        save.record.parts = save.parts.iter().filter_map(|(_, part)| part.clone()).collect();
        save.until = self.now + self.settings.step_deadline();
        let record = save.record.clone();
        let in_progress = self.saves.keys().filter(|other| **other != name).cloned().collect();
        self.store_quarantine();
        self.actions.push(Action::StoreCommit { record, epoch: self.epoch, in_progress });
    }

    pub(super) fn commit_stored(&mut self, name: &str, result: Result<(), StoreFailure>) {
        let Some(save) = self.saves.remove(name) else { return };
        match result {
            Ok(()) => {}
            Err(StoreFailure::Fenced(reason)) => return self.fail(4, reason),
            Err(StoreFailure::Failed(reason)) => {
                return self.fail(1, format!("checkpoint {name} cannot be written: {reason}"));
            }
        }
        tracing::info!(checkpoint = name, "a checkpoint is complete");
        if self.last_checkpoint.as_ref().is_none_or(|(_, step)| *step <= save.record.step) {
            self.last_checkpoint = Some((name.to_owned(), save.record.step));
        }
        if matches!(self.phase, Phase::Saving) {
            self.go_on_saving();
        }
    }

    /// Whether a part of a checkpoint is awaited of a member.
    pub(super) fn must_still_save(&self, id: u32) -> bool {
        self.saves
            .values()
            .any(|save| save.parts.iter().any(|(member, part)| *member == id && part.is_none()))
    }

    pub(super) fn abandon_saves_of(&mut self, id: u32) {
        let lacks = |save: &Save| save.parts.iter().any(|(member, part)| *member == id && part.is_none());
        let names: Vec<String> =
            self.saves.iter().filter(|(_, save)| lacks(save)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.abandon(&name, &format!("worker {id} is gone before its part was written"));
        }
    }

    fn abandon(&mut self, name: &str, why: &str) {
        self.saves.remove(name);
        self.save_is_overdue = true;
        self.fault(format!("checkpoint {name} is abandoned: {why}"));
    }

    pub(super) fn check_saves(&mut self) {
        let late: Vec<String> = self
            .saves
            .iter()
            .filter(|(_, save)| self.now >= save.until)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &late {
            self.abandon(name, "it was not written in time");
        }
        if !late.is_empty() && matches!(self.phase, Phase::Saving) {
            self.go_on_saving();
        }
    }

    /// In [`Phase::Saving`]: concludes, waits on, or tries again.
    pub(super) fn go_on_saving(&mut self) {
        if self.is_saved() {
            self.conclude();
        } else if !self.saves.values().any(|save| save.record.step == self.committed) {
            self.save_last();
        }
    }

    pub(super) fn is_saved(&self) -> bool {
        let saved = self.last_checkpoint.as_ref().map_or(0, |(_, step)| *step);
        saved == self.committed && !self.saves.values().any(|save| save.record.step == self.committed)
    }

    /// Writes a checkpoint of the committed state with those who hold it, then concludes.
    pub(super) fn save_last(&mut self) {
        if self.is_saved() {
            return self.conclude();
        }
        let holders: Vec<u32> = self.members.keys().copied().filter(|id| self.is_holder(*id)).collect();
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

    /// The committed state is lost with all who held it.
    fn nothing_to_save(&mut self) {
        self.return_to_what_is_held();
        if self.stopping.is_some() { self.conclude() } else { self.regroup() }
    }
}
