//! The state machine of a run: events in, actions out. No clock, no network, no store.

mod cadence;
mod complaint;
mod complaints;
mod cost;
mod counted;
mod ending;
mod figures;
mod flapping;
mod gathering;
mod hand_over;
mod handing_over;
mod holding;
mod interface;
pub(crate) mod invariants;
mod joining;
mod leading;
mod loss_rise;
mod membership;
mod non_finite;
mod phase;
#[cfg(feature = "planted-bugs")]
mod planted;
#[cfg(feature = "planted-bugs")]
mod planted_bug;
mod progress;
mod quarantine;
mod records;
mod save;
mod saving;
mod settling;
mod spending;
mod state;
mod status;
mod stepping;
mod telling;
#[cfg(test)]
mod tests;
mod times;

use std::time::Duration;

use blip2_proto::v1::worker_message::Kind as FromWorker;

pub use self::figures::Figures;
pub use self::interface::{Action, Event, Outcome, SessionId, Start, StoreFailure};
#[cfg(feature = "planted-bugs")]
pub use self::planted_bug::PlantedBug;
pub use self::state::Machine;

use self::phase::Phase;

/// Time without a tick after which this process is taken to have been paused.
const STANDSTILL: Duration = Duration::from_secs(2);

impl Machine {
    /// Takes in what happened at `now` (since the machine's start) and says what to do, in order.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        let has_begun = self.progress.first_attempt.is_some();
        if has_begun {
            self.spending.goes_on(self.committed);
        }
        self.spending.pass(self.now, &self.phase, has_begun);
        if !self.is_ended() {
            self.take_in(event);
        } else if let Event::Joined { session, hello } = event {
            self.joined_too_late(session, &hello);
        }
        debug_assert_eq!(invariants::check(self), Ok(()));
        std::mem::take(&mut self.actions)
    }

    fn take_in(&mut self, event: Event) {
        #[cfg(feature = "planted-bugs")]
        let event = self.unfenced(event);
        match event {
            Event::Joined { session, hello } => self.joined(session, hello),
            Event::Message { session, message } => self.message(session, message),
            Event::Disconnected { session } => {
                if let Some(member) = self.member_of(session) {
                    self.lost(member, "its connection ended");
                }
            }
            Event::Tick => self.tick(),
            Event::EpochTaken { epoch, result } => self.epoch_taken(epoch, result),
            Event::EpochConfirmed { result } => self.epoch_confirmed(result),
            Event::CommitStored { name, result } => self.commit_stored(&name, result),
            Event::Recorded { steps } => self.records.keep(steps),
            Event::StopRequested { reason } => self.stop_requested(reason),
            Event::DrainRequested { reason } => self.drain_requested(reason),
            Event::StandbyAsked { standby } => self.standby_asked(standby),
            Event::StandbyLeft { standby } => self.standby_left(&standby),
        }
    }

    fn message(&mut self, session: SessionId, message: FromWorker) {
        // A connection that was closed from here may still say something.
        let Some(id) = self.member_of(session) else { return };
        if let Some(member) = self.members.get_mut(&id) {
            member.last_seen = self.now;
        }
        match message {
            FromWorker::Hello(_) => self.expel(id, "it introduced itself twice"),
            FromWorker::Heartbeat(_) => {}
            FromWorker::Ready(ready) => self.is_ready(id, ready),
            FromWorker::StepDone(done) => self.step_done(id, done),
            FromWorker::StepFailed(failed) => self.step_failed(id, failed),
            FromWorker::PartWritten(part) => self.part_written(id, part),
            FromWorker::PartFailed(part) => self.part_failed(id, part),
            FromWorker::Leaving(_) => self.leaving(id),
            FromWorker::Failed(failed) => self.worker_failed(id, failed),
        }
    }

    fn tick(&mut self) {
        self.allow_for_standstill();
        self.check_leadership();
        self.check_hand_over();
        self.check_members();
        self.check_saves();
        match &self.phase {
            Phase::Gathering(_) => self.go_on_gathering(),
            Phase::Electing(_) => self.go_on_electing(),
            Phase::Stepping { since, .. } if self.now >= *since + self.step_patience() => {
                self.step_timed_out()
            }
            Phase::Settling { until, .. } if self.now >= *until => self.settled(),
            Phase::Saving { retry: Some(retry) } if self.now >= *retry => self.save_last(),
            _ => {}
        }
    }

    /// If this process itself stood still, what the members said meanwhile is still to be taken in, another
    /// coordinator may lead by now, and no wait was too long.
    fn allow_for_standstill(&mut self) {
        let gap = self.now.saturating_sub(std::mem::replace(&mut self.last_tick, self.now));
        if gap >= STANDSTILL {
            tracing::warn!(seconds = gap.as_secs_f64(), "this process stood still");
            self.members.values_mut().for_each(|member| member.last_seen += gap);
            self.put_off_saves(gap);
            self.hand_over.put_off(gap);
            self.phase.put_off(gap);
        }
    }
}
