//! The steps: reports and commits.

use std::collections::{BTreeMap, BTreeSet};

use blip2_dataset::coverage::Coverage;
use blip2_proto::v1::{CommittedStep, NamedValue, Quarantined, StepDone, StepFailed};
use blip2_run::coverage::coverage_of;
use blip2_run::quarantine;

use super::interface::Action;
use super::non_finite::Verdict;
use super::phase::{Phase, Report};
use super::state::{Held, Machine, Member};

impl Machine {
    pub(super) fn step_done(&mut self, id: u32, done: StepDone) {
        if done.epoch != self.epoch || done.step != self.committed || !self.is_in_world(id) {
            return;
        }
        // Who has done the step holds the state before it.
        let held = Held { step: self.committed, coverage: self.coverage.clone() };
        if let Some(member) = self.members.get_mut(&id) {
            member.held = Some(held);
        }
        let needed = self.world.len();
        #[cfg(feature = "planted-bugs")]
        let needed =
            needed - usize::from(needed > 1 && self.has(super::planted_bug::PlantedBug::CommitsWithoutAll));
        match &mut self.phase {
            Phase::Stepping { reports, .. } => {
                reports.entry(id).or_insert(Report::Done(done));
                // A failed report would have ended this phase: these are all done.
                if reports.len() >= needed {
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
        let used = match self.used_by_step(&reports) {
            Ok(used) => used,
            Err(reason) => {
                return self.fail(1, format!("step {}: {reason}; the run cannot be trusted", self.committed));
            }
        };
        let skipped = match self.judge(&reports) {
            Verdict::Commits { skipped } => skipped,
            Verdict::Ends(reason) => return self.fail(1, reason),
        };
        let (step, stage) = (self.committed, self.schedule.stage_of(self.committed));
        self.count(stage, used);
        if let Some(why) = &skipped {
            self.skipped.insert(step);
            self.fault(format!("{why}; the step is skipped"));
        }
        (self.redone, self.last_saves) = (0, 0);
        self.complaints.clear();
        let held = Held { step: self.committed, coverage: self.coverage.clone() };
        for (id, _) in &self.world {
            if let Some(member) = self.members.get_mut(id) {
                member.held = Some(held.clone());
                (member.strikes, member.accusers) = (0, 0);
                let done = reports.get(id);
                member.data_wait_share = done.map_or(0.0, |done| share(done.data_wait_seconds, done.seconds));
                member.device_use = done.and_then(|done| done.device_use);
            }
        }
        let (mut committed, rows) = self.summarise(step, stage, reports);
        committed.skipped = skipped.is_some();
        committed.loss_rise = self.watch_loss(&committed);
        let is_new = self.progress.committed(self.now, since, &committed);
        self.spending.committed(is_new, committed.data_wait_seconds);
        committed.spent = self.spending.told();
        self.counted.met(&rows);
        if is_new {
            self.records.committed(&committed);
            self.actions.push(Action::Report(committed));
        }
        self.note_unmeasured();
        if let Some(message) = self.quarantine_excess() {
            return self.fail(3, message);
        }
        let saves = self.save_is_due();
        self.order_save(step, saves, rows);
        self.after_commit();
    }

    /// What all members' slots used in the step: as many samples as the stage's global batch has.
    fn used_by_step(&self, reports: &BTreeMap<u32, StepDone>) -> Result<Coverage, String> {
        let (stage, step) = (self.schedule.stage_of(self.committed), self.committed);
        let mut sum = Coverage::default();
        for (id, done) in reports {
            let used = done.coverage.as_ref().filter(|used| used.stage == stage).and_then(coverage_of);
            let used = used.ok_or_else(|| format!("worker {id} does not say which samples it used"))?;
            #[cfg(feature = "planted-bugs")]
            let used = match sum.samples > 0 && self.has(super::planted_bug::PlantedBug::CoverageDropped) {
                true => Coverage { digest: 0, ..used },
                false => used,
            };
            sum += used;
        }
        let batch = self.schedule.samples_of(stage, step + 1) - self.schedule.samples_of(stage, step);
        if sum.samples == batch {
            return Ok(sum);
        }
        Err(format!("its members used {} samples of a batch of {batch}", sum.samples))
    }

    /// Counts the step.
    fn count(&mut self, stage: u32, used: Coverage) {
        self.coverage.add(stage, used);
        #[cfg(feature = "planted-bugs")]
        if self.has(super::planted_bug::PlantedBug::CommitsTwice) && self.world.len() > 1 {
            return;
        }
        #[cfg(feature = "planted-bugs")]
        if self.has(super::planted_bug::PlantedBug::SkipsAStep) && self.committed + 2 < self.schedule.total()
        {
            self.committed += 1;
        }
        self.committed += 1;
        if !self.rows_ahead.is_empty() {
            self.sort_rows();
        }
        self.doubt_holders();
    }

    /// The step in numbers, and the rows it met.
    fn summarise(
        &mut self,
        step: u64,
        stage: u32,
        reports: BTreeMap<u32, StepDone>,
    ) -> (CommittedStep, Vec<Quarantined>) {
        let of_stage = self.schedule.stage(stage);
        let mut committed = CommittedStep {
            step,
            stage,
            stage_name: of_stage.map(|stage| stage.name.clone()).unwrap_or_default(),
            task: of_stage.map(|stage| stage.task.clone()).unwrap_or_default(),
            epoch: self.epoch,
            values: Vec::new(),
            seconds: 0.0,
            data_wait_seconds: 0.0,
            samples: 0,
            bytes_sent: 0,
            bytes_copied: 0,
            samples_seen: self.schedule.samples(step + 1),
            skipped: false,
            loss_rise: None,
            device_bytes: None,
            kernels_compiled: None,
            spent: None,
        };
        let mut rows = Vec::new();
        for (_, done) in reports {
            committed.seconds = committed.seconds.max(done.seconds);
            committed.data_wait_seconds = committed.data_wait_seconds.max(done.data_wait_seconds);
            committed.samples += done.samples;
            committed.bytes_sent = committed.bytes_sent.saturating_add(done.bytes_sent);
            committed.bytes_copied = committed.bytes_copied.saturating_add(done.bytes_copied);
            let reserved = done.device_use.map(|usage| usage.reserved_bytes);
            committed.device_bytes = committed.device_bytes.max(reserved);
            let compiled =
                done.device_use.map(|usage| usage.kernels_compiled).filter(|compiled| *compiled > 0);
            committed.kernels_compiled = committed.kernels_compiled.max(compiled);
            committed.values = done.values;
            rows.extend(done.quarantined.into_iter().map(|row| Quarantined { step, ..row }));
        }
        self.quarantine.extend(rows.iter().cloned().map(quarantine::from_message));
        (committed, rows)
    }

    /// How many times larger than its smallest mean the mean loss is, if it has just risen so far.
    fn watch_loss(&mut self, step: &CommittedStep) -> Option<f64> {
        let loss = step.values.iter().find(|named| named.name == "loss")?.value;
        let settings = self.spec.loss_rise;
        let rise = self.loss_watch.push(settings, step.stage, step.step, loss)?;
        let (mean, smallest, window) = (rise.mean, rise.smallest, settings.window);
        self.fault(format!(
            "step {}: the loss rises: its mean over {window} steps is {mean:.4}, the smallest of stage {} was \
             {smallest:.4}",
            step.step, step.stage
        ));
        Some(mean / smallest)
    }

    /// Goes on: ends the run, changes the membership, or waits for the next step.
    fn after_commit(&mut self) {
        if self.stopping.is_some() {
            self.abort("the run stops after this step");
            self.phase = Phase::Saving { retry: None };
            return;
        }
        if self.committed == self.schedule.total() {
            self.phase = Phase::Saving { retry: None };
            return;
        }
        let in_world: BTreeSet<u32> = self.world.iter().map(|(id, _)| *id).collect();
        let joins =
            |(id, member): (&u32, &Member)| member.is_ready && !member.is_leaving && !in_world.contains(id);
        let joiners = self.members.iter().any(joins);
        // Somebody must hand the state on to those who join.
        let hands_on = |id: &u32| self.members.get(id).is_some_and(|member| !member.is_leaving);
        let leavers: Vec<u32> = self
            .members
            .iter()
            .filter(|(id, member)| member.is_leaving && !self.must_still_save(**id))
            .map(|(id, _)| *id)
            .filter(|_| in_world.iter().any(hands_on))
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
    // One NaN is like the other: which bits it has is the processor's choice.
    let number = |value: f64| if value.is_nan() { f64::NAN } else { value };
    let bits = |values: &[NamedValue]| -> Vec<(String, u64)> {
        values.iter().map(|value| (value.name.clone(), number(value.value).to_bits())).collect()
    };
    let (first, reference) = reports.iter().next()?;
    let (other, values) = reports.iter().find(|(_, done)| bits(&done.values) != bits(&reference.values))?;
    Some(format!(
        "workers {first} and {other} report different values: {:?} and {:?}",
        reference.values, values.values
    ))
}
