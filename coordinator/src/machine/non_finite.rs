//! Steps whose losses, gradient or update are not finite: they end the run, or are committed without effect.
//!
//! Which steps these are depends on the run alone, not on who does them: what is known of one is true whoever
//! told it.

use std::collections::BTreeMap;

use blip2_proto::v1::{SlotSamples, StepDone};

use super::state::Machine;
use crate::NonFinitePolicy;

/// Slots named in a message.
const NAMED_SLOTS: usize = 4;

/// What to do with a step that all members have reported.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts, with its effect, or without for the reason that is told.
    Commits { skipped: Option<String> },
    /// It ends the run.
    Ends(String),
}

impl Machine {
    /// Judges the step by its reports, whose values are equal.
    pub(super) fn judge(&self, reports: &BTreeMap<u32, StepDone>) -> Verdict {
        let mut terms = reports.values().map(|done| done.non_finite.as_ref().map(|odd| odd.term.as_str()));
        let first = terms.next().flatten();
        if let Some(other) = terms.find(|other| *other != first) {
            return Verdict::Ends(format!(
                "step {}: workers do not agree on what is not finite: {first:?} and {other:?}; the run cannot be trusted",
                self.committed
            ));
        }
        let Some(term) = first else { return Verdict::Commits { skipped: None } };
        let step = self.committed;
        let what = format!(
            "step {step} (stage {}): not a finite number: {term}{}",
            self.schedule.stage_of(step),
            rows(reports)
        );
        let before = self.skipped_before(step);
        match self.spec.non_finite {
            NonFinitePolicy::Skip { at_most } if before < at_most => Verdict::Commits { skipped: Some(what) },
            NonFinitePolicy::Skip { at_most } => Verdict::Ends(format!(
                "{what}. {before} steps were skipped before it and train.max_skipped_steps = {at_most}, so it is not \
                 committed; {}",
                self.advice()
            )),
            NonFinitePolicy::Stop => Verdict::Ends(format!(
                "{what}. The step is not committed; {}, or pass over such steps with --resume --set \
                 train.non_finite=skip",
                self.advice()
            )),
        }
    }

    fn advice(&self) -> String {
        let number = self.schedule.stage_of(self.committed);
        let stage = self.schedule.stage(number).map_or("NAME", |stage| stage.name.as_str());
        let continued = match &self.last_checkpoint {
            Some(checkpoint) => {
                format!("checkpoint {} holds and --resume continues from it", checkpoint.name)
            }
            None => "nothing was saved yet".to_owned(),
        };
        format!(
            "{continued}. Look at the rows and at metrics.jsonl, lower stages.{stage}.optimizer.learning_rate \
             or set stages.{stage}.optimizer.clip_norm in a new run"
        )
    }

    /// Skipped steps among the first `step`.
    pub(super) fn skipped_before(&self, step: u64) -> u64 {
        self.skipped.range(..step).count() as u64
    }
}

/// The rows that the members blame, as the end of a sentence.
fn rows(reports: &BTreeMap<u32, StepDone>) -> String {
    let slots = reports.values().flat_map(|done| done.non_finite.iter().flat_map(|odd| &odd.slots));
    let all: Vec<&SlotSamples> = slots.collect();
    let named: Vec<String> = all.iter().take(NAMED_SLOTS).map(|slot| text(slot)).collect();
    match (named.is_empty(), all.len().saturating_sub(NAMED_SLOTS)) {
        (true, _) => String::new(),
        (false, 0) => format!(", of {}", named.join("; ")),
        (false, more) => format!(", of {}; and {more} more slots", named.join("; ")),
    }
}

fn text(slot: &SlotSamples) -> String {
    let keys = slot.keys.join(", ");
    let more = if slot.more > 0 { format!(" and {} more", slot.more) } else { String::new() };
    format!("slot {} with the rows {keys}{more}", slot.slot)
}
