//! Whether this coordinator still leads the run.

use std::time::Duration;

use super::interface::{Action, Outcome, StoreFailure};
use super::phase::{Ending, Phase};
use super::state::{Leadership, Machine};

/// Time between two looks at the newest epoch.
const CONFIRM_EVERY: Duration = Duration::from_secs(2);
/// The same while the lead is offered to another.
const CONFIRM_OFFER_EVERY: Duration = Duration::from_millis(200);
/// After this long without an answer the question is put again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

impl Machine {
    pub(super) fn check_leadership(&mut self) {
        let since = self.now.saturating_sub(self.leadership.asked);
        let every = if self.hands_over() { CONFIRM_OFFER_EVERY } else { CONFIRM_EVERY };
        if since >= if self.leadership.is_open { ANSWER_DEADLINE } else { every } {
            self.ask_who_leads();
        }
    }

    pub(super) fn ask_who_leads(&mut self) {
        self.leadership = Leadership { asked: self.now, is_open: true };
        self.actions.push(Action::ConfirmEpoch { epoch: self.epoch });
    }

    pub(super) fn epoch_confirmed(&mut self, result: Result<(), StoreFailure>) {
        self.leadership.is_open = false;
        match result {
            Ok(()) => {}
            Err(StoreFailure::Fenced(reason)) => self.fenced(reason),
            // Nothing is decided on this answer: the next write that matters is conditional itself.
            Err(StoreFailure::Failed(reason)) => tracing::warn!(%reason, "the newest epoch cannot be read"),
        }
    }

    /// Another coordinator leads: ends without a word to the members, who look for the new one.
    pub(super) fn fenced(&mut self, reason: String) {
        if self.is_ended() {
            return;
        }
        let is_asked_for = self.was_offered();
        let (ending, outcome) = match is_asked_for {
            true => (Ending::HandedOver, Outcome::HandedOver),
            false => (Ending::Fenced, Outcome::Failed { exit_code: 4, message: reason.clone() }),
        };
        if is_asked_for {
            tracing::info!(%reason, step = self.committed, "another coordinator has taken over");
        } else {
            self.fault(reason);
        }
        self.phase = Phase::Ended(ending);
        for (_, member) in std::mem::take(&mut self.members) {
            self.actions.push(Action::Close { session: member.session });
        }
        self.world.clear();
        self.actions.push(Action::Finish(outcome));
    }
}
