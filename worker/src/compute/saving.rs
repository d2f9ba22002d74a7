//! Snapshots of checkpoint parts: the only time the step loop spends on a checkpoint.

use std::time::Instant;

use blip2_proto::v1::{Commit, PartFailed};
use blip2_run::layout::shard_name;
use blip2_telemetry::metric::STEP_PHASE_SECONDS_TOTAL;

use super::holdings::{Compute, Report};
use crate::error::{Result, WorkerError};
use crate::member::MemberEvent;
use crate::upload::Part;

impl Compute {
    /// Hands out this member's part of the state, if the commit asks for one. With too many parts in memory
    /// already it waits for the oldest to be stored.
    pub(super) fn hand_out_part(&self, commit: &Commit) -> Result<()> {
        if commit.save_checkpoint.is_empty() {
            return Ok(());
        }
        let ordered = Instant::now();
        let state =
            self.state.as_ref().ok_or_else(|| WorkerError::Protocol("a save without state".into()))?;
        let snapshots = self.snapshots.clone();
        // The clock is the runtime's, and this thread enters the runtime only to wait.
        let place = async { tokio::time::timeout(self.deadline, snapshots.acquire_owned()).await };
        // Only the end of the worker ends this wait early: the part is owed whatever becomes of the epoch.
        let Ok(Ok(place)) = self.unless_aborted(u64::MAX, place)? else {
            let seconds = self.deadline.as_secs_f64();
            let reason = format!("earlier parts are not stored after {seconds:.0} s");
            let failed = PartFailed { checkpoint: commit.save_checkpoint.clone(), reason };
            return self.report(Report::Event(Box::new(MemberEvent::PartFailed(failed))));
        };
        let content = state.encode_part(commit.part_index, commit.part_count)?;
        let stall = ordered.elapsed();
        self.telemetry.add(&STEP_PHASE_SECONDS_TOTAL, &["checkpoint_stall"], stall.as_secs_f64());
        self.report(Report::Part(Part {
            checkpoint: commit.save_checkpoint.clone(),
            step: commit.step + 1,
            name: shard_name(commit.part_index, commit.part_count),
            content,
            ordered,
            stall,
            deadline: self.deadline,
            _place: place,
        }))
    }
}
