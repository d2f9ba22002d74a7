//! Members that cannot go on: whether that is their own trouble or the run's.
//!
//! An error that one member meets may be its disk's, its mount's or its memory's. It is the run's when
//! another one, which does the same step in its place, meets it too, or when there is no other. A member
//! whose trouble is its own is turned out with its reason, and the run goes on without it.

use blip2_proto::v1::{Failed, Stop, StopKind};

use super::complaint::Complaint;
use super::phase::Phase;
use super::state::Machine;

/// The exit code of the command line for a worker that is turned out: refused.
const REFUSED: u32 = 4;
/// So many workers at least must say the same before a run begins, to be believed: the coordinator has looked
/// at what it can see of the run itself.
const WITNESSES: usize = 2;
/// Checkpoint parts in a row that a member cannot store though others can, after which it is turned out.
const PART_FAILURES: u32 = 2;

impl Machine {
    /// A member says that it cannot go on.
    pub(super) fn worker_failed(&mut self, id: u32, failed: Failed) {
        let Some(member) = self.members.get(&id) else { return };
        let (name, place) = (member.name.clone(), member.place());
        let exit_code = if failed.exit_code == 0 { 1 } else { failed.exit_code };
        let (epoch, message) = (self.epoch, failed.message);
        let complaint = Complaint { member: id, place, joined: self.next_member, epoch, exit_code, message };
        #[cfg(feature = "planted-bugs")]
        let for_all = self.has(super::planted_bug::PlantedBug::OneForAll);
        #[cfg(not(feature = "planted-bugs"))]
        let for_all = false;
        if for_all || self.is_the_runs(id, &complaint) {
            return self.fail(exit_code, format!("worker {id} ({name}): {}", complaint.message));
        }
        let why = format!("it cannot go on: {}", complaint.message);
        // A process that was started again at the same place is not another witness.
        self.complaints.retain(|earlier| earlier.place != complaint.place || earlier.joined > id);
        self.complaints.push(complaint);
        self.turn_out(id, &why);
        self.go_on_gathering();
    }

    /// Whether a member's error is that of the run.
    fn is_the_runs(&self, id: u32, complaint: &Complaint) -> bool {
        let is_alone = self.members.keys().all(|other| *other == id);
        if matches!(self.phase, Phase::Gathering(_)) {
            // Whoever is ready has done what this one cannot do, and others may.
            let is_done_by_others = self.ready().any(|other| other != id);
            return match self.on_one_machine {
                true => !is_done_by_others,
                false => {
                    is_alone
                        && self.complaining_with(complaint) >= WITNESSES.max(self.settings.workers as usize)
                }
            };
        }
        if !self.is_involved(id) {
            return false;
        }
        // Those who failed in the same attempt met it at the same place; whoever does it again in their place
        // decides.
        let is_met_again = self.complaints.iter().any(|earlier| {
            earlier.epoch < complaint.epoch && earlier.member != id && earlier.is_same(complaint)
        });
        is_alone || is_met_again
    }

    /// Workers that could not begin for the same reason, this one included.
    fn complaining_with(&self, complaint: &Complaint) -> usize {
        let is_another =
            |earlier: &&Complaint| earlier.place != complaint.place || earlier.joined > complaint.member;
        let same = self.complaints.iter().filter(|earlier| earlier.is_same(complaint));
        1 + same.filter(is_another).count()
    }

    /// Workers that were turned out before the start, of those that were asked for.
    pub(super) fn turned_out(&self) -> usize {
        self.complaints.len().min(self.settings.workers as usize)
    }

    /// Goes on without a member whose trouble is its own.
    pub(super) fn turn_out(&mut self, id: u32, why: &str) {
        let stop = Stop { kind: StopKind::StopExcluded.into(), reason: why.to_owned(), exit_code: REFUSED };
        self.dismiss(id, stop, why);
    }

    /// Takes note of who could not store its part of a checkpoint that others could store theirs of.
    pub(super) fn parts_failed(&mut self, failed: &[(u32, String)]) {
        for (id, reason) in failed {
            let Some(member) = self.members.get_mut(id) else { continue };
            member.part_failures += 1;
            if member.part_failures >= PART_FAILURES {
                self.turn_out(
                    *id,
                    &format!("it cannot store its parts of checkpoints, others can: {reason}"),
                );
            }
        }
    }

    /// What those say who could not begin, as the end of a sentence.
    pub(super) fn complaints_in_words(&self) -> String {
        let last = self.complaints.last();
        last.map_or(String::new(), |last| format!("; {} could not begin: {}", last.place, last.message))
    }
}
