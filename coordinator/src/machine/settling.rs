//! Attempts that fail with all members alive: who is to blame, and when to try again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Machine, Phase, Report};

/// Failed attempts in a row in which a member must be suspected to be sent away though it lives.
const STRIKES: u32 = 2;

impl Machine {
    /// After this long without a commit the members that said nothing are to blame: the deadline of their own
    /// collectives, and time for those who waited to say so.
    pub(super) fn step_patience(&self) -> Duration {
        self.settings.step_deadline() + self.settings.heartbeat_timeout()
    }

    /// No member's loss explains the failed attempt: sends away who is to blame, if anybody, and redoes the step.
    pub(super) fn settled(&mut self) {
        let Phase::Settling { since, reports, .. } = &mut self.phase else { return };
        let (since, reports) = (*since, std::mem::take(reports));
        let members: BTreeSet<u32> = std::mem::take(&mut self.world).into_iter().map(|(id, _)| id).collect();
        let mut reasons = Vec::new();
        let mut suspected: BTreeSet<u32> = BTreeSet::new();
        for (reporter, report) in &reports {
            if let Report::Failed { reason, suspects } = report {
                reasons.push(format!("worker {reporter}: {reason}"));
                suspected.extend(suspects.iter().filter(|id| *id != reporter && members.contains(id)));
            }
        }
        for id in &suspected {
            if let Some(member) = self.members.get_mut(id) {
                member.strikes += 1;
            }
        }
        let silent: Vec<u32> = suspected.iter().copied().filter(|id| !reports.contains_key(id)).collect();
        let hung = self.now.saturating_sub(since) >= self.settings.step_deadline() && !silent.is_empty();
        if hung {
            for id in silent {
                self.expel(id, "it did not answer the others within the step's deadline");
            }
        } else if let Some(id) = self.most_suspect(&suspected) {
            self.take_for_lost(id, "others cannot reach it");
        } else {
            self.redone += 1;
        }
        if self.redone > self.settings.max_redo {
            let (step, redone) = (self.committed, self.settings.max_redo);
            return self.fail(
                1,
                format!("step {step} failed after {redone} redone attempts: {}", reasons.join("; ")),
            );
        }
        self.regroup();
    }

    /// The member that others suspected most often, the youngest of several.
    fn most_suspect(&self, suspected: &BTreeSet<u32>) -> Option<u32> {
        let strikes = |id: &u32| self.members.get(id).map_or(0, |member| member.strikes);
        let id = suspected.iter().copied().max_by_key(|id| (strikes(id), *id))?;
        (strikes(&id) >= STRIKES).then_some(id)
    }

    /// The deadline passed and the members that waited said nothing of it, or one that hangs is waited for by nobody.
    pub(super) fn step_timed_out(&mut self) {
        let Phase::Stepping { reports, .. } = &self.phase else { return };
        let silent: Vec<u32> =
            self.world.iter().map(|(id, _)| *id).filter(|id| !reports.contains_key(id)).collect();
        let seconds = self.step_patience().as_secs_f64();
        let why = format!("step {} is not done after {seconds:.0} s", self.committed);
        if silent.len() == self.world.len() {
            return self.fail(
                1,
                format!("{why} by any worker; raise coordinator.step_deadline_s if a step takes that long"),
            );
        }
        self.abort(&why);
        // Without a world the losses that follow are taken in one go.
        self.world.clear();
        for id in silent {
            self.expel(id, &why);
        }
        self.regroup();
    }
}
