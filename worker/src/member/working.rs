//! The orders to compute: one at a time, in the order in which the coordinator decided.

use blip2_proto::v1::worker_message::Kind as ToCoordinator;
use blip2_proto::v1::{Abort, Assignment, Commit, StepDone, StepFailed};

use super::interface::{Failure, MemberAction};
use super::machine::MemberMachine;
use super::standing::{Order, WorldStep};

impl MemberMachine {
    pub(super) fn assigned(&mut self, assignment: Assignment) {
        if assignment.epoch < self.epoch {
            let (theirs, known) = (assignment.epoch, self.epoch);
            return self.turn_away(format!("it assigns epoch {theirs}, epoch {known} is known"));
        }
        if self.assigned == Some(assignment.epoch) {
            return;
        }
        self.epoch = assignment.epoch;
        self.assigned = Some(assignment.epoch);
        if let Some(Order::Enter { epoch, .. } | Order::Reduce { epoch, .. }) = self.order {
            self.abort_up_to(epoch, "a newer assignment came");
        }
        let entered = self.world.map(|world| world.epoch);
        self.saves.retain(|save| Some(save.epoch) == entered);
        self.wanted = Some(assignment);
        self.proceed();
    }

    pub(super) fn committed(&mut self, commit: Commit) {
        if self.assigned != Some(commit.epoch) {
            return;
        }
        let next = match (&self.wanted, self.order, self.world) {
            (Some(wanted), ..) => wanted.step,
            (None, Some(Order::Enter { step, .. }), _) => step,
            (None, _, Some(world)) if world.epoch == commit.epoch => world.step,
            // It could not be entered.
            _ => return,
        };
        if commit.step + 1 == next {
            return self.save_alone(commit);
        }
        if commit.step != next {
            return;
        }
        if self.pending != Some((commit.epoch, commit.step)) {
            let step = commit.step;
            return self.turn_away(format!("it commits step {step}, which this worker has not reduced"));
        }
        self.pending = None;
        self.world = Some(WorldStep { epoch: commit.epoch, step: commit.step + 1 });
        self.note_commit(&commit);
        self.apply(commit, true);
    }

    /// A save that was begun with other members, or the repetition of a commit.
    fn save_alone(&mut self, commit: Commit) {
        if !commit.save_checkpoint.is_empty() && commit.save_checkpoint != self.saved {
            self.saved.clone_from(&commit.save_checkpoint);
            self.saves.push_back(commit);
            self.proceed();
        }
    }

    fn apply(&mut self, commit: Commit, begins_next: bool) {
        if !commit.save_checkpoint.is_empty() {
            self.saved.clone_from(&commit.save_checkpoint);
        }
        self.order = Some(Order::Apply { step: commit.step, begins_next });
        self.actions.push(MemberAction::Apply(commit));
    }

    pub(super) fn aborted(&mut self, abort: Abort) {
        // An epoch that is yet to come is nothing to abort.
        let Some(assigned) = self.assigned else { return };
        self.abort_up_to(abort.epoch.min(assigned), &abort.reason);
    }

    pub(super) fn abort_up_to(&mut self, epoch: u64, reason: &str) {
        if epoch <= self.aborted {
            return;
        }
        self.aborted = epoch;
        self.actions.push(MemberAction::Abort { epoch, reason: reason.to_owned() });
    }

    /// Drops what a session that is gone had ordered; what compute does already, it completes.
    pub(super) fn forget_orders(&mut self) {
        self.assigned = None;
        self.wanted = None;
        self.saves.clear();
        self.due = false;
    }

    /// Gives compute its next order, if it has none.
    fn proceed(&mut self) {
        if self.order.is_some() {
            return;
        }
        if let Some(world) = self.world
            && let Some(save) = self.saves.pop_front_if(|save| save.epoch == world.epoch)
        {
            return self.apply(save, false);
        }
        if let Some(assignment) = self.wanted.take() {
            return self.enter(assignment);
        }
        if let Some(world) = self.world.filter(|world| self.may_begin(world)) {
            self.due = false;
            self.pending = None;
            self.order = Some(Order::Reduce { epoch: world.epoch, step: world.step });
            self.actions.push(MemberAction::Reduce { epoch: world.epoch, step: world.step });
        }
    }

    fn may_begin(&self, world: &WorldStep) -> bool {
        let total = self.run.as_ref().and_then(|run| run.total_steps).unwrap_or(u64::MAX);
        self.due && self.assigned == Some(world.epoch) && world.epoch > self.aborted && world.step < total
    }

    fn enter(&mut self, assignment: Assignment) {
        let leads_there =
            |(_, step): (u64, u64)| self.holds == Some(step) && assignment.step == step.saturating_add(1);
        let apply_pending = self.pending.is_some_and(leads_there);
        #[cfg(feature = "planted-bugs")]
        let apply_pending = apply_pending
            || self.pending.is_some() && self.has(super::planted::PlantedBug::AppliesWhatIsPending);
        if apply_pending {
            self.pending = None;
        }
        self.world = None;
        self.order = Some(Order::Enter { epoch: assignment.epoch, step: assignment.step });
        self.entering = assignment.ledger.clone();
        self.actions.push(MemberAction::Enter { assignment, apply_pending });
    }

    pub(super) fn entered(&mut self, epoch: u64, step: u64, result: Result<(), Failure>) {
        if self.order != Some(Order::Enter { epoch, step }) {
            return;
        }
        self.order = None;
        match result {
            Ok(()) => {
                self.note_state(step);
                self.world = Some(WorldStep { epoch, step });
                self.due = self.assigned == Some(epoch);
            }
            Err(failure) => self.report_failure(epoch, step, failure),
        }
        self.seek_if_lost();
        self.proceed();
    }

    pub(super) fn reduced(&mut self, epoch: u64, step: u64, result: Result<StepDone, Failure>) {
        if self.order != Some(Order::Reduce { epoch, step }) {
            return;
        }
        self.order = None;
        match result {
            Ok(done) => {
                self.pending = Some((epoch, step));
                if self.assigned == Some(epoch) {
                    self.tell(ToCoordinator::StepDone(done));
                }
            }
            Err(failure) => self.report_failure(epoch, step, failure),
        }
        self.proceed();
    }

    fn report_failure(&mut self, epoch: u64, step: u64, failure: Failure) {
        if self.assigned == Some(epoch) {
            let Failure { reason, suspects } = failure;
            self.tell(ToCoordinator::StepFailed(StepFailed { epoch, step, reason, suspects }));
        }
    }

    pub(super) fn applied(&mut self, step: u64) {
        let Some(Order::Apply { step: ordered, begins_next }) = self.order else { return };
        if ordered != step {
            return;
        }
        self.order = None;
        self.due |= begins_next && self.assigned.is_some();
        self.proceed();
    }
}
