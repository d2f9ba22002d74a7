//! Where this process stands in its run, which every JSON line says.

use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

/// What is known by now: a process is of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The run by its name; empty: none yet.
    pub(crate) run: String,
    /// The newest membership epoch.
    pub(crate) epoch: Option<u64>,
    /// Committed steps.
    pub(crate) step: Option<u64>,
    /// The number that the coordinator gave this worker.
    pub(crate) member: Option<u32>,
}

/// Hexadecimal digits of a trace's id.
const TRACE_ID: usize = 32;

static STANDING: Mutex<Standing> =
    Mutex::new(Standing { run: String::new(), epoch: None, step: None, member: None });

/// From now on lines say this.
pub(crate) fn stands(standing: Standing) {
    *STANDING.lock().unwrap_or_else(PoisonError::into_inner) = standing;
}

/// From now on lines say that they are of this run.
pub(crate) fn is_of_run(run: &str) {
    stands(Standing { run: run.to_owned(), ..Standing::default() });
}

impl Standing {
    /// As lines say it now.
    pub(super) fn now() -> Self {
        STANDING.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds what is known.
    pub(super) fn tell(self, line: &mut Map<String, Value>) {
        if let Some(id) = self.trace_id() {
            line.insert("trace_id".into(), id.into());
        }
        let Self { run, epoch, step, member } = self;
        if !run.is_empty() {
            line.insert("run".into(), run.into());
        }
        let numbers = [("epoch", epoch), ("step", step), ("member", member.map(u64::from))];
        for (name, number) in numbers {
            if let Some(number) = number {
                line.insert(name.into(), number.into());
            }
        }
    }

    /// The trace of the step in progress, in the form of OpenTelemetry: equal on all processes of the run
    /// without being sent, since each computes it.
    fn trace_id(&self) -> Option<String> {
        let (epoch, step) = (self.epoch?, self.step?);
        let mut hash = blake3::Hasher::new();
        hash.update(self.run.as_bytes()).update(b"\0");
        hash.update(&epoch.to_le_bytes()).update(&step.to_le_bytes());
        let id = hash.finalize().to_hex();
        Some(id[..TRACE_ID].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_one_trace_on_all_members() {
        let at = |run: &str, epoch, step, member| Standing {
            run: run.to_owned(),
            epoch: Some(epoch),
            step,
            member,
        };
        let id = |standing: Standing| standing.trace_id();
        let here = id(at("a", 2, Some(7), None)).unwrap();
        assert_eq!(here.len(), TRACE_ID);
        assert_eq!(id(at("a", 2, Some(7), Some(3))), Some(here.clone()));
        for other in [at("b", 2, Some(7), None), at("a", 3, Some(7), None), at("a", 2, Some(8), None)] {
            assert_ne!(id(other), Some(here.clone()));
        }
        assert_eq!(id(at("a", 2, None, None)), None);
        let mut line = Map::new();
        at("a", 2, Some(7), None).tell(&mut line);
        assert_eq!(line["trace_id"], here);
    }
}
