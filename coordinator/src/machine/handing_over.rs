//! The lead passes to a coordinator that stands by, because this process shall go.
//!
//! The one that stands by reads in the status that it is to take over, and takes the next epoch. Until then
//! steps are committed here; from then on this coordinator is fenced off, and the members look for the other
//! one with the state they hold, as after a crash.

use std::time::Duration;

use super::state::Machine;

/// One that stands by asks twice a second: after so long without a question it is gone.
const STANDBY_LIVES: Duration = Duration::from_secs(3);
/// How long it may take to take over: it may have to read the newest checkpoint back first.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(20);
/// More are not kept in mind.
const MOST_STANDBYS: usize = 64;

impl Machine {
    pub(super) fn standby_asked(&mut self, standby: String) {
        let heard = &mut self.hand_over.heard;
        if heard.len() < MOST_STANDBYS || heard.contains_key(&standby) {
            heard.insert(standby, self.now);
        }
    }

    pub(super) fn standby_left(&mut self, standby: &str) {
        self.hand_over.heard.remove(standby);
        if self.hands_over() && self.hand_over.heard.is_empty() {
            self.stop_instead("the coordinator that stood by is gone too");
        }
    }

    /// Offers the lead if somebody stands by, else saves and leaves.
    pub(super) fn drain_requested(&mut self, reason: String) {
        if self.stopping.is_some() || self.hand_over.offered.is_some() {
            return;
        }
        let (now, steps_are_done) = (self.now, self.committed == self.schedule.total());
        self.hand_over.heard.retain(|_, heard| now.saturating_sub(*heard) <= STANDBY_LIVES);
        // Workers of one machine end with the process that started them.
        if self.hand_over.heard.is_empty() || self.on_one_machine || steps_are_done {
            return self.stop_requested(reason);
        }
        let standby = self.hand_over.heard.keys().cloned().collect::<Vec<_>>().join(", ");
        tracing::info!(%reason, %standby, step = self.committed, "the lead is handed over");
        self.hand_over.offered = Some(self.now);
    }

    /// Whether whoever stands by is to take over.
    pub(super) fn hands_over(&self) -> bool {
        self.hand_over.offered.is_some() && !self.hand_over.withdrawn && !self.is_ended()
    }

    /// Whether whoever leads from now on was asked to.
    pub(super) fn was_offered(&self) -> bool {
        self.hand_over.offered.is_some()
    }

    pub(super) fn withdraw_offer(&mut self) {
        self.hand_over.withdrawn = true;
    }

    pub(super) fn check_hand_over(&mut self) {
        let is_late = |since: Duration| self.now.saturating_sub(since) >= TAKES_OVER_WITHIN;
        if self.hands_over() && self.hand_over.offered.is_some_and(is_late) {
            self.fault(format!("no coordinator took over within {} s", TAKES_OVER_WITHIN.as_secs()));
            self.stop_instead("no coordinator took over");
        }
    }

    fn stop_instead(&mut self, why: &str) {
        self.stop_requested(format!("this coordinator was asked to go, and {why}"));
    }
}
