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
}
