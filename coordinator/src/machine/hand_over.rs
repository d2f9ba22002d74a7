//! Those that stand by, and whether one of them is to take over.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is known of those that stand by, and whether one of them is to take over.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// When each of them, by its URL, last asked.
    pub(super) heard: BTreeMap<String, Duration>,
    /// Since when the lead is offered.
    pub(super) offered: Option<Duration>,
    /// The run stops instead: nobody took the lead, or somebody asked for it.
    pub(super) withdrawn: bool,
}

impl HandOver {
    /// Moves the deadlines.
    pub(super) fn put_off(&mut self, by: Duration) {
        self.heard.values_mut().chain(&mut self.offered).for_each(|time| *time += by);
    }
}
