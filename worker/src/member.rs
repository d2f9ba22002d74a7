//! A member's life as a state machine: events in, actions out. No clock, no network, no compute.
//!
//! The shell ([`crate::run`]) opens sessions, runs the compute thread and stores parts; a simulation puts
//! others in their place and drives the very code that runs in production.

mod interface;
mod ledger;
mod link;
mod machine;
#[cfg(feature = "planted-bugs")]
mod planted;
mod standing;
#[cfg(test)]
mod tests;
mod working;

use std::time::Duration;

use blip2_proto::v1::worker_message::Kind as ToCoordinator;

pub use self::interface::{Failure, MemberAction, MemberEnd, MemberEvent, MemberIdentity, MemberSettings};
pub use self::machine::MemberMachine;
#[cfg(feature = "planted-bugs")]
pub use self::planted::PlantedBug;

impl MemberMachine {
    /// Takes in what happened at `now` (since the machine's start) and says what to do, in order.
    pub fn step(&mut self, now: Duration, event: MemberEvent) -> Vec<MemberAction> {
        self.now = self.now.max(now);
        if !self.is_over() {
            self.take_in(event);
        }
        std::mem::take(&mut self.actions)
    }

    fn take_in(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Opened => self.opened(),
            MemberEvent::Closed { reason } => self.closed(reason),
            MemberEvent::Received(message) => self.received(message),
            MemberEvent::Prepared => self.prepared(),
            MemberEvent::Entered { epoch, step, result } => self.entered(epoch, step, result),
            MemberEvent::Reduced { epoch, step, result } => self.reduced(epoch, step, result),
            MemberEvent::Applied { step } => self.applied(step),
            MemberEvent::PartStored(part) => self.tell(ToCoordinator::PartWritten(part)),
            MemberEvent::PartFailed(failed) => self.tell(ToCoordinator::PartFailed(failed)),
            MemberEvent::Failed { exit_code, message } => self.failed(exit_code, message),
            MemberEvent::RunOver { how } => self.run_over(&how),
            MemberEvent::LeaveRequested => self.leave_requested(),
            MemberEvent::Tick => self.tick(),
        }
    }
}
