//! The steps: reports, commits, and attempts that fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blip2_proto::v1::{NamedValue, StepDone, StepFailed};

use super::{Action, CommittedStep, Machine, Phase, Report};

/// Failed attempts in a row in which a member must be suspected to be sent away though it lives.
const STRIKES: u32 = 2;

impl Machine {
    /// After this long without a commit the members that said nothing are to blame: the deadline of their own
    /// collectives, and time for those who waited to say so.
    pub(super) fn step_patience(&self) -> Duration {
        self.settings.step_deadline() + self.settings.heartbeat_timeout()
    }

    pub(super) fn step_done(&mut self, id: u32, done: StepDone) {
        if done.epoch != self.epoch || done.step != self.committed || !self.is_in_world(id) {
            return;
        }
        match &mut self.phase {
            Phase::Stepping { reports, .. } => {
                reports.entry(id).or_insert(Report::Done(done));
                // A failed report would have ended this phase: these are all done.
                if reports.len() == self.world.len() {
                    self.commit();
                }
            }
            Phase::Settling { reports, .. } => {
                reports.entry(id).or_insert(Report::Done(done));
            }
            _ => {}
        }
    }

    pub(super) fn step_failed(&mut self, id: u32, failed: StepFailed) {
        if failed.epoch != self.epoch || failed.step != self.committed || !self.is_in_world(id) {
            return;
        }
        let StepFailed { reason, suspects, .. } = failed;
        match &mut self.phase {
            Phase::Stepping { since, reports } => {
                let (since, mut reports) = (*since, std::mem::take(reports));
                let fault = format!("step {}: worker {id} failed: {reason}", self.committed);
                reports.insert(id, Report::Failed { reason, suspects });
                // Nobody can complete the step without it: let none wait for the deadline.
                self.abort(&fault);
                self.fault(fault);
                let until = self.now + self.settings.heartbeat_timeout() / 4;
                self.phase = Phase::Settling { since, until, reports };
            }
            Phase::Settling { reports, .. } => {
                reports.entry(id).or_insert(Report::Failed { reason, suspects });
            }
            _ => {}
        }
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
            self.expel(id, "others cannot reach it");
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

    /// All members are done: the step counts.
    fn commit(&mut self) {
        let Phase::Stepping { since, reports } = &mut self.phase else { return };
        let since = *since;
        let reports: BTreeMap<u32, StepDone> = std::mem::take(reports)
            .into_iter()
            .filter_map(|(id, report)| match report {
                Report::Done(done) => Some((id, done)),
                Report::Failed { .. } => None,
            })
            .collect();
        if let Some(difference) = disagreement(&reports) {
            return self.fail(1, format!("step {}: {difference}; the run cannot be trusted", self.committed));
        }
        let step = self.committed;
        self.committed += 1;
        (self.redone, self.last_saves) = (0, 0);
        for (id, _) in &self.world {
            if let Some(member) = self.members.get_mut(id) {
                member.holds = Some(self.committed);
                member.strikes = 0;
                let done = reports.get(id);
                member.data_wait_share = done.map_or(0.0, |done| share(done.data_wait_seconds, done.seconds));
            }
        }
        let committed = self.summarise(step, reports);
        if self.progress.committed(self.now, since, &committed) {
            self.actions.push(Action::Report(committed));
        }
        if let Some(message) = self.quarantine_excess() {
            return self.fail(3, message);
        }
        let saves = self.save_is_due();
        self.order_save(step, saves);
        self.after_commit();
    }

    fn summarise(&mut self, step: u64, reports: BTreeMap<u32, StepDone>) -> CommittedStep {
        let mut committed = CommittedStep {
            step,
            stage: self.schedule.stage_of(step),
            epoch: self.epoch,
            values: Vec::new(),
            seconds: 0.0,
            data_wait_seconds: 0.0,
            samples: 0,
        };
        for (_, done) in reports {
            committed.seconds = committed.seconds.max(done.seconds);
            committed.data_wait_seconds = committed.data_wait_seconds.max(done.data_wait_seconds);
            committed.samples += done.samples;
            committed.values = done.values;
            self.take_quarantined(done.quarantined);
        }
        committed
    }

    /// Goes on: ends the run, changes the membership, or waits for the next step.
    fn after_commit(&mut self) {
        if self.stopping.is_some() {
            self.abort("the run stops after this step");
            self.phase = Phase::Saving;
            return;
        }
        if self.committed == self.schedule.total() {
            self.phase = Phase::Saving;
            return;
        }
        let in_world: BTreeSet<u32> = self.world.iter().map(|(id, _)| *id).collect();
        let joiners = self.members.iter().any(|(id, member)| !member.leaving && !in_world.contains(id));
        let leavers: Vec<u32> = self
            .members
            .iter()
            .filter(|(id, member)| member.leaving && !self.must_still_save(**id))
            .map(|(id, _)| *id)
            .collect();
        if !joiners && leavers.is_empty() {
            self.progress.attempt_started(self.now);
            self.phase = Phase::Stepping { since: self.now, reports: BTreeMap::new() };
            return;
        }
        self.abort("the membership changes");
        for id in leavers {
            self.release(id);
        }
        self.regroup();
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

/// How the members' values of the global batch, which must be equal bit for bit, differ.
fn disagreement(reports: &BTreeMap<u32, StepDone>) -> Option<String> {
    let bits = |values: &[NamedValue]| -> Vec<(String, u64)> {
        values.iter().map(|value| (value.name.clone(), value.value.to_bits())).collect()
    };
    let (first, reference) = reports.iter().next()?;
    let (other, values) = reports.iter().find(|(_, done)| bits(&done.values) != bits(&reference.values))?;
    Some(format!(
        "workers {first} and {other} report different values: {:?} and {:?}",
        reference.values, values.values
    ))
}
