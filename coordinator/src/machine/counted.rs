//! What is counted of a lead.

use std::collections::BTreeMap;
use std::time::Duration;

use blip2_proto::v1::Quarantined;

/// Counts that are kept for the figures of a lead alone.
#[derive(Debug, Default)]
pub(super) struct Counted {
    quarantined: BTreeMap<&'static str, u64>,
    checkpoint: Duration,
}

impl Counted {
    /// A committed step met these rows.
    pub(super) fn met(&mut self, rows: &[Quarantined]) {
        for row in rows {
            *self.quarantined.entry(kind(&row.reason)).or_insert(0) += 1;
        }
    }

    /// Such rows by what is wrong with them.
    pub(super) fn quarantined(&self) -> &BTreeMap<&'static str, u64> {
        &self.quarantined
    }

    /// When the newest checkpoint was complete.
    pub(super) fn checkpoint(&self) -> Duration {
        self.checkpoint
    }

    /// A checkpoint is complete.
    pub(super) fn saved(&mut self, now: Duration) {
        self.checkpoint = now;
    }
}

/// What a row could not be used for: its text, its question, or else its image.
fn kind(reason: &str) -> &'static str {
    let is_about = |what: &str| reason.starts_with("it has no ") && reason.contains(what);
    if is_about("question") {
        "question"
    } else if is_about("text") {
        "text"
    } else {
        "image"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_apart_by_what_is_wrong_with_them() {
        let kinds = ["it has no text", "it has no question with an answer", "it ends early"].map(kind);
        assert_eq!(kinds, ["text", "question", "image"]);
        assert_eq!(kind("it has no text that the tokenizer knows"), "text");
    }
}
