//! Attempts that fail with all members alive: who is to blame, and when to try again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::phase::{Phase, Report};
use super::spending::Redone;
use super::state::Machine;

/// Failed attempts in a row in which a member must be suspected to be sent away though it lives.
const STRIKES: u32 = 2;

impl Machine {
    /// After this long without a commit the members that said nothing are to blame: the deadline of their own
    /// collectives, and time for those who waited to say so.
    pub(super) fn step_patience(&self) -> Duration {
        self.settings.step_deadline() + self.settings.heartbeat_timeout()
    }

    /// No member's loss explains the failed attempt: sends away who is to blame, if anybody, and redoes the
    /// step.
    pub(super) fn settled(&mut self) {
        let Phase::Settling { since, reports, .. } = &mut self.phase else { return };
        let (since, reports) = (*since, std::mem::take(reports));
        self.spending.attempt_ended(Redone::Failed);
        let members: BTreeSet<u32> = std::mem::take(&mut self.world).into_iter().map(|(id, _)| id).collect();
        let mut reasons = Vec::new();
        // Those whose own trouble it was, and by how many each was suspected of others.
        let mut own: BTreeMap<u32, &String> = BTreeMap::new();
        let mut suspected: BTreeMap<u32, u32> = BTreeMap::new();
        for (reporter, report) in &reports {
            if let Report::Failed { reason, suspects } = report {
                reasons.push(format!("worker {reporter}: {reason}"));
                if suspects.contains(reporter) {
                    own.insert(*reporter, reason);
                }
                for id in suspects.iter().filter(|id| *id != reporter && members.contains(id)) {
                    *suspected.entry(*id).or_insert(0) += 1;
                }
            }
        }
        let silent: Vec<u32> = suspected.keys().copied().filter(|id| !reports.contains_key(id)).collect();
        // Whoever says that the trouble is its own explains what others saw of it, directly or through
        // others; what all of them have is no one's own.
        let explained = !own.is_empty() && own.len() < members.len();
        if explained {
            suspected = own.keys().map(|id| (*id, 1)).collect();
        }
        for (id, accusers) in &suspected {
            if let Some(member) = self.members.get_mut(id) {
                member.strikes += 1;
                member.accusers += accusers;
            }
        }
        let hung = self.now.saturating_sub(since) >= self.settings.step_deadline() && !silent.is_empty();
        if hung {
            for id in silent {
                self.expel(id, "it did not answer the others within the step's deadline");
            }
        } else if let Some(id) = self.most_suspect(&suspected) {
            match own.get(&id).filter(|_| explained) {
                Some(reason) => self.turn_out(id, &format!("it cannot do the step, others can: {reason}")),
                None => self.take_for_lost(id, "others cannot reach it"),
            }
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

    /// The member that was suspected in most attempts, by most others in these, the youngest of several.
    fn most_suspect(&self, suspected: &BTreeMap<u32, u32>) -> Option<u32> {
        let weight =
            |id: &u32| self.members.get(id).map_or((0, 0), |member| (member.strikes, member.accusers));
        let id = suspected.keys().copied().max_by_key(|id| (weight(id), *id))?;
        (weight(&id).0 >= STRIKES).then_some(id)
    }

    /// The deadline passed and the members that waited said nothing of it, or one that hangs is waited for by
    /// nobody.
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
        self.spending.attempt_ended(Redone::Deadline);
        self.abort(&why);
        // Without a world the losses that follow are taken in one go.
        self.world.clear();
        for id in silent {
            self.expel(id, &why);
        }
        self.regroup();
    }
}
