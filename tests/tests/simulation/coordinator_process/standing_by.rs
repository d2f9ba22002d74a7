//! The stand-by: looks at the newest epoch and its leader, and takes over where it is to.

use std::time::Duration;

use blip2_run::epoch::EpochRecord;

use super::{Beginning, CoordinatorProcess, Stage, settings};
use crate::process::{Conclusion, Effect, Leading, Ticket, Wake};
use crate::store::Request;

/// Milliseconds between two looks at the leader.
const PROBE_EVERY: u64 = 500;
/// Time between two looks at the newest epoch while the leader answers.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// One that answered within this time is not silent.
const HEARD_LATELY: Duration = Duration::from_millis(1500);

impl CoordinatorProcess {
    /// Reads the newest epoch's record, often while the leader is silent; then asks its coordinator.
    pub(super) fn look(&mut self, local: Duration) {
        let Stage::StandingBy { heard, looked, .. } = &mut self.stage else { return };
        let is_fresh = looked.is_some_and(|looked| local.saturating_sub(looked) < LOOK_EVERY);
        if is_fresh && local.saturating_sub(*heard) < HEARD_LATELY {
            return self.ask_leader(local);
        }
        *looked = Some(local);
        self.ask(Ticket::Watch, Request::Epochs);
    }

    pub(super) fn ask_leader(&mut self, local: Duration) {
        let Stage::StandingBy { heard, newest, .. } = &mut self.stage else { return };
        let Some(record) = newest.clone() else {
            // Nobody has begun the run yet.
            *heard = local;
            return self.after(PROBE_EVERY, Wake::Probe);
        };
        if record.end.is_some() {
            return self.effects.push(Effect::Conclude(Conclusion::AlreadyOver));
        }
        self.effects.push(Effect::Probe { address: record.address });
    }

    pub(super) fn watched(&mut self, local: Duration, found: Option<EpochRecord>) {
        let Stage::StandingBy { heard, newest, .. } = &mut self.stage else { return };
        let number = |record: &Option<EpochRecord>| record.as_ref().map_or(0, |record| record.epoch);
        if number(&found) != number(newest) {
            // Whoever took an epoch lives.
            *heard = local;
        }
        *newest = found;
    }

    pub(super) fn probed(&mut self, local: Duration, answer: Option<Leading>) {
        let Stage::StandingBy { heard, newest, stranded, .. } = &mut self.stage else { return };
        if let Some(Leading { waits, workers, .. }) = answer {
            *heard = local;
            stranded.leader_has(local, waits, workers);
        }
        let (silent, patience) = (local.saturating_sub(*heard), settings(&self.setup).takeover_after_s);
        let patience = Duration::from_secs_f64(patience);
        let is_offered = answer.is_some_and(|leader| leader.hands_over);
        if is_offered || silent >= patience || answer.is_some() && stranded.is_certain(local, patience) {
            let after = newest.as_ref().map(|record| record.epoch);
            self.stage = Stage::Beginning(Beginning { after, ..Beginning::default() });
            return self.ask(Ticket::Latest, Request::Latest);
        }
        self.after(PROBE_EVERY, Wake::Probe);
    }
}
