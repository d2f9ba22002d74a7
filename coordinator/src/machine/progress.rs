//! What the run tells of itself.

use std::collections::VecDeque;
use std::time::Duration;

use blip2_proto::v1::{MemberStatus, NamedValue, StatusReply};

use super::{CommittedStep, Machine, Phase};

/// Commits over which rates are averaged.
const WINDOW: usize = 32;
/// How the names of values begin that were measured on held-out rows.
const HELD_OUT: &str = "eval_";
/// How many members could not measure them.
const UNMEASURED: &str = "eval_failures";
/// Faults remembered.
const MOST_FAULTS: usize = 32;

/// Rates, losses and faults.
#[derive(Debug)]
pub(super) struct Progress {
    /// Values of the newest committed step.
    pub(super) values: Vec<NamedValue>,
    /// Steps below it were reported.
    reported: u64,
    first_attempt: Option<Duration>,
    last_commit: Duration,
    /// Seconds spent in attempts that were committed.
    useful: Duration,
    recent: VecDeque<Recent>,
    faults: VecDeque<String>,
    /// Faults so far, forgotten ones included.
    fault_count: u64,
    /// The newest numbers on held-out rows, and the committed steps behind them.
    held_out: (u64, Vec<NamedValue>),
    /// Members lost so far.
    pub(super) losses: u64,
}

#[derive(Debug)]
struct Recent {
    seconds: f64,
    waited: f64,
    computed: f64,
    samples: u64,
}

impl Progress {
    pub(super) fn new(committed: u64, values: Vec<NamedValue>) -> Self {
        Self {
            values,
            reported: committed,
            first_attempt: None,
            last_commit: Duration::ZERO,
            useful: Duration::ZERO,
            recent: VecDeque::new(),
            faults: VecDeque::new(),
            fault_count: 0,
            held_out: (0, Vec::new()),
            losses: 0,
        }
    }

    pub(super) fn attempt_started(&mut self, now: Duration) {
        self.first_attempt.get_or_insert(now);
    }

    /// Takes in a committed step; whether it was never reported before (a run set back commits some again, with the
    /// same values).
    pub(super) fn committed(&mut self, now: Duration, since: Duration, step: &CommittedStep) -> bool {
        let (held_out, values) =
            step.values.iter().cloned().partition::<Vec<_>, _>(|value| value.name.starts_with(HELD_OUT));
        self.values = values;
        if !held_out.is_empty() {
            self.held_out = (step.step + 1, held_out);
        }
        self.last_commit = now;
        let took = now.saturating_sub(since);
        self.useful += took;
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent {
            seconds: took.as_secs_f64(),
            waited: step.data_wait_seconds,
            computed: step.seconds,
            samples: step.samples,
        });
        let is_new = step.step >= self.reported;
        self.reported = self.reported.max(step.step + 1);
        is_new
    }

    /// Another coordinator reported the steps below `committed`, and knew the values of the last.
    pub(super) fn skip_to(&mut self, committed: u64) {
        self.reported = self.reported.max(committed);
        self.values.clear();
    }

    fn mean_seconds(&self) -> f64 {
        let total: f64 = self.recent.iter().map(|step| step.seconds).sum();
        if self.recent.is_empty() { 0.0 } else { total / self.recent.len() as f64 }
    }
}

impl Machine {
    pub(super) fn fault(&mut self, fault: String) {
        tracing::warn!("{fault}");
        if self.progress.faults.len() == MOST_FAULTS {
            self.progress.faults.pop_front();
        }
        self.progress.faults.push_back(fault);
        self.progress.fault_count += 1;
    }

    /// Says when the newest numbers on held-out rows are none.
    pub(super) fn note_unmeasured(&mut self) {
        let (step, values) = (self.progress.held_out.0, &self.progress.held_out.1);
        let failures = values.iter().find(|value| value.name == UNMEASURED).map(|value| value.value);
        if let (Some(failures), true) = (failures, step == self.committed) {
            self.fault(format!(
                "step {step}: {failures} of the workers could not evaluate the held-out rows; their logs say why"
            ));
        }
    }

    /// The run as its status page shows it.
    pub fn status(&self) -> StatusReply {
        let progress = &self.progress;
        let sum = |part: fn(&Recent) -> f64| progress.recent.iter().map(part).sum::<f64>();
        let (seconds, computed) = (sum(|step| step.seconds), sum(|step| step.computed));
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let elapsed = progress
            .first_attempt
            .map_or(0.0, |first| progress.last_commit.saturating_sub(first).as_secs_f64());
        let (checkpoint_stall_seconds, checkpoint_seconds) = self.cost.newest();
        let left = self.schedule.total() - self.committed;
        let members = self.members.iter().map(|(id, member)| {
            let slots = self
                .world
                .iter()
                .find(|(in_world, _)| in_world == id)
                .map_or(0..0, |(_, slots)| slots.clone());
            MemberStatus {
                member_id: *id,
                name: member.name.clone(),
                exchange_address: member.address.clone(),
                first_slot: slots.start,
                slot_count: slots.len() as u32,
                data_wait_share: member.data_wait_share,
                device: member.device.clone(),
                device_use: member.device_use,
            }
        });
        let number = self.schedule.stage_of(self.committed);
        let stage = self.schedule.stage(number);
        StatusReply {
            run_id: self.spec.run_id.clone(),
            state: self.state().into(),
            epoch: self.epoch,
            step: self.committed,
            total_steps: self.schedule.total(),
            stage: number,
            stage_name: stage.map(|stage| stage.name.clone()).unwrap_or_default(),
            task: stage.map(|stage| stage.task.clone()).unwrap_or_default(),
            values: progress.values.clone(),
            samples_per_s: ratio(sum(|step| step.samples as f64), seconds),
            data_wait_share: ratio(sum(|step| step.waited), computed),
            goodput: ratio(progress.useful.as_secs_f64(), elapsed),
            quarantined: self.quarantine.len() as u64,
            members: members.collect(),
            faults: progress.faults.iter().cloned().collect(),
            last_checkpoint: self.last_checkpoint.as_ref().map_or(String::new(), |saved| saved.name.clone()),
            eta_seconds: left as f64 * progress.mean_seconds(),
            checkpoint_stall_seconds,
            checkpoint_seconds,
            not_downloaded: self.spec.not_downloaded,
            skipped_steps: self.skipped_before(self.committed),
            run_root: self.spec.run_root.to_string(),
            fault_count: progress.fault_count,
            samples_seen: self.schedule.samples(self.committed),
            held_out: progress.held_out.1.clone(),
            held_out_step: progress.held_out.0,
        }
    }

    fn state(&self) -> &'static str {
        match &self.phase {
            Phase::Gathering(_) => "waiting",
            Phase::Electing(_) | Phase::Stepping { .. } | Phase::Settling { .. } => "running",
            Phase::Saving { .. } => "saving",
            Phase::Ended(ending) => ending.state(),
        }
    }
}
