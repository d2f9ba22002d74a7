//! Who holds which state, and what is known of the committed steps: coverage and unusable rows.
//!
//! A step is a pure function, so a state is named by its number of committed steps alone: whoever holds it
//! holds the same bits. The committed steps may therefore follow what the members hold, forwards (a
//! coordinator that takes over) and, when all who held the newest state are gone for good, backwards;
//! coverage and rows follow them.

use blip2_dataset::quarantine::{QuarantineList, QuarantineRecord};
use blip2_proto::v1::{CommittedStep, Hello, Ledger};
use blip2_run::coverage::StageCoverage;
use blip2_run::quarantine;

use super::spending::Redone;
use super::state::{Held, Machine};

impl Machine {
    pub(super) fn is_holder(&self, id: u32) -> bool {
        self.members.get(&id).and_then(|member| member.held.as_ref()).is_some_and(|held| {
            // The coverage belongs to the state: a member with another one is not trusted with it.
            held.step == self.committed && held.coverage == self.coverage
        })
    }

    /// Whether the state after the committed steps is at hand: initial, in the store, or with a member that
    /// is ready.
    pub(super) fn is_state_at_hand(&self) -> bool {
        self.committed == self.saved_step() || self.ready().any(|id| self.is_holder(id))
    }

    /// Committed steps of the newest checkpoint; 0 without one.
    pub(super) fn saved_step(&self) -> u64 {
        self.last_checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step)
    }

    /// What a worker that was in the run says it holds.
    pub(super) fn held_by(&mut self, hello: &Hello) -> Option<Held> {
        let step = hello.holds.filter(|_| hello.run_id == self.spec.run_id)?;
        let taken = match &hello.ledger {
            Some(ledger) if ledger.step == step => self.take_ledger(ledger),
            _ => Err("its ledger is of other steps".to_owned()),
        };
        match taken {
            Ok(coverage) => Some(Held { step, coverage }),
            Err(reason) => {
                let name = hello.name.escape_debug();
                self.fault(format!(
                    "worker {name} says it holds {step} steps, which is not believed: {reason}"
                ));
                None
            }
        }
    }

    fn take_ledger(&mut self, ledger: &Ledger) -> Result<StageCoverage, String> {
        if ledger.step > self.schedule.total() {
            return Err(format!("the run has {} steps", self.schedule.total()));
        }
        let coverage = StageCoverage::from_messages(&ledger.coverage).ok_or("its coverage is malformed")?;
        coverage.fits(&self.schedule, ledger.step)?;
        let skipped = ledger.skipped_steps.iter().filter(|step| **step < ledger.step);
        #[cfg(feature = "planted-bugs")]
        let kept = !self.has(super::planted_bug::PlantedBug::LosesSkips);
        #[cfg(feature = "planted-bugs")]
        let skipped = skipped.filter(|_| kept);
        self.skipped.extend(skipped);
        self.records.learn(&ledger.records);
        let spent = |record: &CommittedStep| Some((record.step, record.spent?));
        self.spending.learn(ledger.records.iter().filter_map(spent));
        #[cfg(feature = "planted-bugs")]
        if self.has(super::planted_bug::PlantedBug::LosesQuarantine) {
            return Ok(coverage);
        }
        self.rows_ahead.extend(ledger.quarantined.iter().cloned().map(quarantine::from_message));
        self.sort_rows();
        Ok(coverage)
    }

    /// Whether a member that is ready holds more than is committed: steps that another coordinator committed,
    /// or that were given up for lost.
    pub(super) fn somebody_is_ahead(&self) -> bool {
        self.ready().any(|id| {
            self.members
                .get(&id)
                .is_some_and(|member| member.held.as_ref().is_some_and(|held| held.step > self.committed))
        })
    }

    /// To the newest state that a ready member holds, if it is ahead of the committed steps.
    pub(super) fn move_ahead(&mut self) {
        let Some(held) = self.newest_held().filter(|held| held.step > self.committed) else { return };
        tracing::info!(from = self.committed, to = held.step, "going on from what the members hold");
        self.move_to(held);
        // The coordinator that committed these steps has reported them.
        self.progress.skip_to(self.committed);
    }

    /// Nobody has the committed state any more: to the newest that somebody has, or that is in the store.
    pub(super) fn set_back(&mut self) {
        if self.is_state_at_hand() {
            return;
        }
        let saved = self.last_checkpoint.as_ref();
        let saved = saved.map_or_else(
            || Held { step: 0, coverage: StageCoverage::default() },
            // One of later steps, finished after the run was set back before it, is as good.
            |checkpoint| Held { step: checkpoint.step, coverage: checkpoint.coverage.clone() },
        );
        let held = self.newest_held().filter(|held| held.step > saved.step).unwrap_or(saved);
        #[cfg(feature = "planted-bugs")]
        let held = if self.has(super::planted_bug::PlantedBug::StartsAfresh) {
            Held { step: 0, coverage: StageCoverage::default() }
        } else {
            held
        };
        self.fault(format!(
            "the state after {} steps is lost with all who held it: going on from {}",
            self.committed, held.step
        ));
        self.spending.count(Redone::StateLost, self.committed.saturating_sub(held.step));
        self.lost_from = Some(self.committed);
        self.move_to(held);
    }

    fn newest_held(&self) -> Option<Held> {
        let held = self.ready().filter_map(|id| self.members.get(&id)?.held.as_ref());
        held.max_by_key(|held| held.step).cloned()
    }

    fn move_to(&mut self, held: Held) {
        self.committed = held.step;
        self.coverage = held.coverage;
        self.redone = 0;
        self.sort_rows();
        self.doubt_holders();
    }

    /// A member that says of the committed steps what the run does not say of them is not trusted with their
    /// state.
    pub(super) fn doubt_holders(&mut self) {
        let mut doubted = Vec::new();
        for (id, member) in &mut self.members {
            let differs = |held: &mut Held| held.step == self.committed && held.coverage != self.coverage;
            if member.held.take_if(differs).is_some() {
                doubted.push(*id);
            }
        }
        for id in doubted {
            self.fault(format!("worker {id} has another coverage after {} steps", self.committed));
        }
    }

    /// Rows of committed steps into `quarantine`, those of later ones into `rows_ahead`.
    pub(super) fn sort_rows(&mut self) {
        let is_committed =
            |row: &QuarantineRecord| row.sample < self.schedule.samples_of(row.stage, self.committed);
        let is_sorted = self.quarantine.iter().all(is_committed) && !self.rows_ahead.iter().any(is_committed);
        if is_sorted {
            return;
        }
        let rows = self.quarantine.iter().chain(self.rows_ahead.iter()).cloned();
        let (committed, ahead): (Vec<_>, Vec<_>) = rows.partition(is_committed);
        self.quarantine = committed.into_iter().collect();
        self.rows_ahead = ahead.into_iter().collect();
    }

    /// The rows that the first `step` steps met.
    pub(super) fn rows_until(&self, step: u64) -> QuarantineList {
        let used = |row: &&QuarantineRecord| row.sample < self.schedule.samples_of(row.stage, step);
        self.quarantine.iter().chain(self.rows_ahead.iter()).filter(used).cloned().collect()
    }

    /// What a member must know to hand the run on to another coordinator.
    pub(super) fn ledger(&self) -> Ledger {
        let durable = self.saved_step();
        let rows = self.quarantine.iter().filter_map(|row| {
            let step = self.schedule.step_of(row.stage, row.sample).filter(|step| *step >= durable)?;
            Some(quarantine::to_message(row, step))
        });
        Ledger {
            step: self.committed,
            coverage: self.coverage.to_messages(),
            quarantined: rows.collect(),
            // All of them: the checkpoint that has them may turn out damaged.
            skipped_steps: self.skipped.range(..self.committed).copied().collect(),
            records: self.records.before(self.committed),
        }
    }
}
