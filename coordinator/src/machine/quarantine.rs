//! The share of rows that could not be used.

use blip2_dataset::quarantine::QuarantineRecord;

use super::state::Machine;

/// Samples after which the share is first judged.
const FIRST_JUDGED: u64 = 100;
/// Rows named when the share is too high.
const NAMED: usize = 3;

impl Machine {
    /// Why the run must stop, when too many rows could not be used.
    pub(super) fn quarantine_excess(&self) -> Option<String> {
        let samples = self.schedule.samples(self.committed);
        let at_end = self.committed == self.schedule.total();
        if self.quarantine.is_empty() || samples < FIRST_JUDGED && !at_end {
            return None;
        }
        let (rows, limit) = (self.quarantine.len(), self.spec.max_quarantined_share);
        let share = rows as f64 / samples.max(1) as f64;
        if share <= limit {
            return None;
        }
        let name = |row: &QuarantineRecord| {
            format!(
                "{} row group {} row {} (key {:?}): {}",
                row.file, row.row_group, row.row, row.key, row.reason
            )
        };
        let first: Vec<String> = self.quarantine.iter().take(NAMED).map(name).collect();
        Some(format!(
            "{rows} of {samples} samples ({:.2} %) met rows that cannot be used, more than data.max_quarantined_share \
             = {limit} allows; the first: {}; all are in quarantine.parquet; clean the corpus or raise the limit",
            100.0 * share,
            first.join("; ")
        ))
    }
}
