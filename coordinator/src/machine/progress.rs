//! Rates, losses and faults of a run.

use std::collections::VecDeque;
use std::time::Duration;

use blip2_proto::v1::{CommittedStep, NamedValue};

/// Commits over which rates are averaged.
const WINDOW: usize = 32;
/// How the names of values begin that were measured on held-out rows.
const HELD_OUT: &str = "eval_";
/// Faults remembered.
const MOST_FAULTS: usize = 32;

/// Rates, losses and faults.
#[derive(Debug)]
pub(super) struct Progress {
    /// Values of the newest committed step.
    pub(super) values: Vec<NamedValue>,
    /// Steps below it were reported.
    reported: u64,
    pub(super) first_attempt: Option<Duration>,
    pub(super) last_commit: Duration,
    /// Seconds spent in attempts that were committed.
    pub(super) useful: Duration,
    pub(super) recent: VecDeque<Recent>,
    pub(super) faults: VecDeque<String>,
    /// Faults so far, forgotten ones included.
    pub(super) fault_count: u64,
    /// The newest numbers on held-out rows, and the committed steps behind them.
    pub(super) held_out: (u64, Vec<NamedValue>),
    /// Members lost so far.
    pub(super) losses: u64,
}

#[derive(Debug)]
pub(super) struct Recent {
    pub(super) seconds: f64,
    pub(super) waited: f64,
    pub(super) computed: f64,
    pub(super) samples: u64,
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

    /// Takes in a committed step; whether it was never reported before (a run set back commits some again,
    /// with the same values).
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

    /// Takes note of a fault, and forgets the oldest beyond a number.
    pub(super) fn note_fault(&mut self, fault: String) {
        if self.faults.len() == MOST_FAULTS {
            self.faults.pop_front();
        }
        self.faults.push_back(fault);
        self.fault_count += 1;
    }
}
