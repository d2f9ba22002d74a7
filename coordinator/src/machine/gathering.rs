//! Waiting for workers: at the start, after a take-over, and when too few are left.

use blip2_proto::v1::Ready;

use super::phase::{Gathering, Phase, Why};
use super::state::Machine;

impl Machine {
    /// Members that can enter an epoch.
    pub(super) fn ready(&self) -> impl Iterator<Item = u32> {
        self.members.iter().filter(|(_, member)| member.is_ready).map(|(id, _)| *id)
    }

    /// Those of them that do not want to go.
    pub(super) fn staying(&self) -> usize {
        self.members.values().filter(|member| member.is_ready && !member.is_leaving).count()
    }

    pub(super) fn wait_for_others(&mut self) {
        let grace = match &self.phase {
            // A wait that goes on is not prolonged.
            Phase::Gathering(Gathering { why: Why::Refill, .. }) => return,
            _ => self.now + self.settings.rejoin_grace(),
        };
        let until = self.now + self.settings.rejoin_timeout();
        self.phase = Phase::Gathering(Gathering { why: Why::Refill, until, grace });
    }

    pub(super) fn is_grace_over(&self) -> bool {
        matches!(&self.phase, Phase::Gathering(wait) if self.now >= wait.grace)
    }

    /// A worker came that was in the run: others may be on their way.
    pub(super) fn extend_grace_for_rejoiners(&mut self) {
        let grace = self.now + self.settings.rejoin_grace();
        let until = self.now + self.settings.rejoin_timeout();
        let is_first = self.members.values().filter(|member| member.has_rejoined).count() == 1;
        if let Phase::Gathering(wait) = &mut self.phase
            && is_first
            && matches!(wait.why, Why::TakeOver(_))
        {
            wait.grace = grace;
            wait.until = wait.until.max(until);
        }
    }

    /// A member can enter an epoch now.
    pub(super) fn is_ready(&mut self, id: u32, ready: Ready) {
        let is_first = self.ready().next().is_none();
        let grace = self.now + self.settings.rejoin_grace();
        let Some(member) = self.members.get_mut(&id).filter(|member| !member.is_ready) else { return };
        member.is_ready = true;
        let device = ready.device.as_ref().map_or("", |device| device.device.as_str());
        tracing::info!(member = id, name = %member.name, device, "a worker is ready");
        member.device = ready.device;
        if let Phase::Gathering(wait) = &mut self.phase {
            if is_first && wait.why == Why::Refill {
                wait.grace = wait.grace.max(grace);
            }
            self.go_on_gathering();
        }
    }

    pub(super) fn go_on_gathering(&mut self) {
        let Phase::Gathering(wait) = &self.phase else { return };
        let (until, is_stopping) = (wait.until, self.stopping.is_some());
        if self.committed == self.schedule.total() && self.is_saved() {
            self.conclude();
        } else if self.are_enough() || is_stopping && self.is_grace_over() {
            self.regroup();
        } else if self.now >= until && !is_stopping {
            self.gathering_timed_out();
        }
    }

    fn are_enough(&self) -> bool {
        let Phase::Gathering(wait) = &self.phase else { return false };
        let (there, least) = (self.staying(), self.settings.min_workers as usize);
        match wait.why {
            // For one that was turned out nobody waits; whoever comes in its place joins later.
            Why::Start => there >= (self.settings.workers as usize - self.turned_out()).max(least).max(1),
            Why::TakeOver(expected) if self.members.values().any(|member| member.has_rejoined) => {
                // Those who hold nothing may be faster than those who do.
                let is_held = self.ready().any(|id| self.members.get(&id).is_some_and(|m| m.held.is_some()));
                there >= expected.max(least) && is_held || there >= least && self.is_grace_over()
            }
            // New ones alone, who hold nothing.
            Why::TakeOver(_) => there >= self.settings.workers as usize && self.is_grace_over(),
            Why::Refill => there >= least && (self.is_state_at_hand() || self.is_grace_over()),
        }
    }

    fn gathering_timed_out(&mut self) {
        let (there, least) = (self.staying(), self.settings.min_workers as usize);
        if there >= least {
            let wanted = self.settings.workers;
            self.fault(format!("starting with {there} of {wanted} workers: no more joined in time"));
            return self.regroup();
        }
        if self.members.values().any(|member| !member.is_ready) {
            // They load the run's models, for which there is a deadline of its own.
            return;
        }
        let checkpoint = match &self.last_checkpoint {
            Some(checkpoint) => format!("continue from checkpoint {}", checkpoint.name),
            None => "nothing is saved yet: start again".into(),
        };
        self.fail(
            1,
            format!(
                "{there} of at least {least} workers are there and no more joined in time; {checkpoint}{}",
                self.complaints_in_words()
            ),
        );
    }
}
