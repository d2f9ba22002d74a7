//! How a run ends.

use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Stop, StopKind};

use super::{Action, Machine, Outcome, Phase};

impl Machine {
    /// Saves at the next commit and leaves; at once when no step is under way.
    pub(super) fn stop_requested(&mut self, reason: String) {
        if self.stopping.is_some() {
            return;
        }
        tracing::info!(%reason, "the run stops");
        self.stopping = Some(reason);
        if matches!(self.phase, Phase::Gathering { .. }) {
            self.save_last();
        }
    }

    /// The state is saved, or there is none: ends the run.
    pub(super) fn conclude(&mut self) {
        let checkpoint = self.last_checkpoint.as_ref().map(|(name, _)| name.clone());
        let is_done = self.committed == self.schedule.total();
        match checkpoint {
            Some(checkpoint) if is_done => {
                self.finish(StopKind::StopDone, 0, "all steps are done".into(), Outcome::Done { checkpoint });
            }
            checkpoint => {
                let reason = self.stopping.clone().unwrap_or_default();
                self.finish(StopKind::StopInterrupted, 5, reason, Outcome::Interrupted { checkpoint });
            }
        }
    }

    pub(super) fn store_quarantine(&mut self) {
        if !self.quarantine.is_empty() {
            self.actions.push(Action::StoreQuarantine(self.quarantine.clone()));
        }
    }

    pub(super) fn fail(&mut self, exit_code: u32, message: String) {
        self.fault(message.clone());
        let outcome = Outcome::Failed { exit_code, message: message.clone() };
        self.finish(StopKind::StopFailed, exit_code, message, outcome);
    }

    fn finish(&mut self, kind: StopKind, exit_code: u32, reason: String, outcome: Outcome) {
        if self.is_ended() {
            return;
        }
        self.phase = Phase::Ended(match outcome {
            Outcome::Done { .. } => "done",
            Outcome::Interrupted { .. } => "interrupted",
            Outcome::Failed { .. } => "failed",
        });
        let ids: Vec<u32> = self.members.keys().copied().collect();
        for id in ids {
            self.send(id, ToWorker::Stop(Stop { kind: kind.into(), reason: reason.clone(), exit_code }));
        }
        self.store_quarantine();
        self.actions.push(Action::Finish(outcome));
    }
}
