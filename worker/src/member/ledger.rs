//! What a member knows of the committed steps, for a coordinator that takes over.

use blip2_proto::bounds::MAX_RECORDS;
use blip2_proto::v1::{Commit, Ledger};

use super::machine::MemberMachine;

impl MemberMachine {
    /// Takes note of a step that is committed with this member's gradient.
    pub(super) fn note_commit(&mut self, commit: &Commit) {
        self.holds = Some(commit.step + 1);
        self.ledger.step = commit.step + 1;
        self.ledger.coverage.clone_from(&commit.coverage);
        self.ledger.quarantined.extend(commit.quarantined.iter().cloned());
        self.ledger.quarantined.retain(|row| row.step >= commit.durable_step);
        self.ledger.skipped_steps.extend(commit.skipped.then_some(commit.step));
        self.ledger.records.extend(commit.record.clone());
        self.ledger.records.retain(|record| record.step >= commit.recorded_steps);
        let surplus = self.ledger.records.len().saturating_sub(MAX_RECORDS);
        self.ledger.records.drain(..surplus);
        #[cfg(feature = "planted-bugs")]
        if self.has(super::planted::PlantedBug::ForgetsRows) {
            self.ledger.quarantined.clear();
        }
    }

    /// Takes note that compute holds the state after `step` steps, as an assignment asked for.
    pub(super) fn note_state(&mut self, step: u64) {
        let told = self.entering.take();
        match told {
            Some(ledger) => self.ledger = ledger,
            None if self.holds == Some(step) => {}
            None => self.ledger = Ledger { step, ..Ledger::default() },
        }
        self.holds = Some(step);
    }
}
