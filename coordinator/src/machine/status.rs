//! What the run tells of itself.

use blip2_proto::v1::{MemberStatus, StatusReply};

use super::phase::Phase;
use super::progress::Recent;
use super::state::Machine;

/// How many members could not measure them.
const UNMEASURED: &str = "eval_failures";

impl Machine {
    pub(super) fn fault(&mut self, fault: String) {
        tracing::warn!("{fault}");
        self.progress.note_fault(fault);
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
        let samples_seen = self.schedule.samples(self.committed);
        let samples_left = self.schedule.samples(self.schedule.total()) - samples_seen;
        let samples_per_s = ratio(sum(|step| step.samples as f64), seconds);
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
            samples_per_s,
            data_wait_share: ratio(sum(|step| step.waited), computed),
            goodput: ratio(progress.useful.as_secs_f64(), elapsed),
            quarantined: self.quarantine.len() as u64,
            members: members.collect(),
            faults: progress.faults.iter().cloned().collect(),
            last_checkpoint: self.last_checkpoint.as_ref().map_or(String::new(), |saved| saved.name.clone()),
            // By samples, not by steps: a later stage's batches may be of another size.
            eta_seconds: ratio(samples_left as f64, samples_per_s),
            checkpoint_stall_seconds,
            checkpoint_seconds,
            not_downloaded: self.spec.not_downloaded,
            skipped_steps: self.skipped_before(self.committed),
            run_root: self.spec.run_root.to_string(),
            fault_count: progress.fault_count,
            samples_seen,
            held_out: progress.held_out.1.clone(),
            held_out_step: progress.held_out.0,
            hands_over: self.hands_over(),
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
