//! A fault as a line.

use std::time::{SystemTime, UNIX_EPOCH};

use blip2_proto::v1::StatusReply;
use serde::{Deserialize, Serialize};

/// A fault as it was noticed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// Seconds since 1970.
    pub unix_seconds: f64,
    /// Newest membership epoch then.
    pub epoch: u64,
    /// Committed steps then.
    pub step: u64,
    /// What happened, in words.
    pub fault: String,
}

/// Which faults of a status were not seen before.
#[derive(Debug, Default)]
pub(crate) struct News {
    known: u64,
}

impl News {
    /// Those, as far as the status still has them.
    pub(crate) fn of(&mut self, status: &StatusReply) -> Vec<FaultRecord> {
        let fresh = usize::try_from(status.fault_count.saturating_sub(self.known)).unwrap_or(usize::MAX);
        self.known = self.known.max(status.fault_count);
        let skipped = status.faults.len().saturating_sub(fresh);
        #[expect(clippy::disallowed_methods, reason = "the date of a fault, for people")]
        let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let record = |fault: &String| FaultRecord {
            unix_seconds,
            epoch: status.epoch,
            step: status.step,
            fault: fault.clone(),
        };
        status.faults[skipped..].iter().map(record).collect()
    }
}

/// The lines of faults, with their ends.
pub(crate) fn lines_of(records: &[FaultRecord]) -> serde_json::Result<String> {
    let mut text = String::new();
    for record in records {
        text += &serde_json::to_string(record)?;
        text.push('\n');
    }
    Ok(text)
}

/// The faults of a text. Lines that cannot be read are passed over.
pub(crate) fn faults_of(text: &str) -> Vec<FaultRecord> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(count: u64, newest: &[&str]) -> StatusReply {
        let faults = newest.iter().map(ToString::to_string).collect();
        StatusReply { fault_count: count, faults, ..StatusReply::default() }
    }

    #[test]
    fn forgotten_faults_are_not_taken_for_new_ones() {
        let fresh = |known: u64| News { known }.of(&status(40, &["x", "y"]));
        assert_eq!(fresh(39).len(), 1);
        assert_eq!(fresh(39)[0].fault, "y");
        assert_eq!(fresh(3).len(), 2);
        assert!(fresh(40).is_empty());
    }
}
