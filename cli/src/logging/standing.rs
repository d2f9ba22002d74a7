//! Where this process stands in its run, which every JSON line says.

use std::sync::{Mutex, PoisonError};

use blip2_telemetry::trace_id;
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
    pub(crate) fn now() -> Self {
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

    /// The trace of the step in progress, in hexadecimal.
    fn trace_id(&self) -> Option<String> {
        let id = trace_id(&self.run, self.epoch?, self.step?);
        Some(id.map(|byte| format!("{byte:02x}")).concat())
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
        assert_eq!(here.len(), 32, "as OpenTelemetry writes it");
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
