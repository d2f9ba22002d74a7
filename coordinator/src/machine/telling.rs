//! Steps that another coordinator committed.

use super::interface::Action;
use super::state::Machine;

impl Machine {
    /// Tells of the steps that another coordinator committed, as far as a member knows of them and their
    /// records may not be kept.
    pub(super) fn tell_of_steps_before(&mut self) {
        for record in self.records.untold(self.committed) {
            self.actions.push(Action::Report(record));
        }
    }
}
