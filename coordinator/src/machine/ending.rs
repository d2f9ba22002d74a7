//! How a run ends.

use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Hello, RefusalCode, Stop, StopKind};

use super::interface::{Action, Outcome, SessionId};
use super::phase::{Ending, Phase};
use super::state::Machine;

impl Machine {
    /// Saves at the next commit and leaves; at once when no step is under way.
    pub(super) fn stop_requested(&mut self, reason: String) {
        if self.stopping.is_some() {
            return;
        }
        tracing::info!(%reason, "the run stops");
        self.withdraw_offer();
        self.stopping = Some(reason);
        if matches!(self.phase, Phase::Gathering(_)) {
            self.save_last();
        }
    }

    /// The state is saved, or there is none: ends the run.
    pub(super) fn conclude(&mut self) {
        let checkpoint = self.last_checkpoint.as_ref().map(|checkpoint| checkpoint.name.clone());
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
        let state = match outcome {
            Outcome::Done { .. } => "done",
            Outcome::Interrupted { .. } => "interrupted",
            Outcome::HandedOver | Outcome::Failed { .. } => "failed",
        };
        let stop = Stop { kind: kind.into(), reason, exit_code };
        let ids: Vec<u32> = self.members.keys().copied().collect();
        for id in ids {
            self.send(id, ToWorker::Stop(stop.clone()));
        }
        self.phase = Phase::Ended(Ending::Told { state, stop });
        self.store_quarantine();
        self.actions.push(Action::Finish(outcome));
    }

    /// A worker comes when it is all over: one of the run is told how it ended, a new one is refused.
    pub(super) fn joined_too_late(&mut self, session: SessionId, hello: &Hello) {
        if let Err(refusal) = self.check(hello) {
            return self.refuse(session, refusal);
        }
        match &self.phase {
            Phase::Ended(Ending::Told { stop, .. }) if !hello.run_id.is_empty() => {
                self.actions.push(Action::Send { session, message: ToWorker::Stop(stop.clone()) });
                self.actions.push(Action::Close { session });
            }
            Phase::Ended(Ending::Fenced | Ending::HandedOver) => {
                let reason = "another coordinator leads this run".to_owned();
                self.refuse(session, (RefusalCode::RefusalFenced, reason).into());
            }
            _ => self.refuse(session, (RefusalCode::RefusalClosed, "the run is over".to_owned()).into()),
        }
    }
}
