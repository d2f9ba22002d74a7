//! What a curation has done, for people.

use blip2_curation::finish::{CurationSummary, KEPT, TextCounts};
use blip2_store::Location;

/// A few lines.
pub(super) fn described(summary: &CurationSummary, out: &Location) -> String {
    let mut text = format!(
        "{out}: {} rows of {} in {} files, {:.1} MB",
        summary.rows,
        summary.rows_read,
        summary.files,
        summary.bytes as f64 / 1e6
    );
    for (count, what) in [
        (summary.without_text, "rows keep no text"),
        (summary.duplicates, "rows are duplicates"),
        (summary.rejected, "rows cannot be used (each of them is in rejected/)"),
    ] {
        if count > 0 {
            text += &format!("\n  {count} {what}");
        }
    }
    for (name, counts) in [("web", &summary.web), ("synthetic", &summary.synthetic)] {
        text += &format!("\n  {name} texts: {}", counted(counts));
    }
    if summary.tasks_done < summary.tasks {
        text += &format!("\n  {} of {} tasks are open", summary.tasks - summary.tasks_done, summary.tasks);
    }
    text
}

/// What was kept, then the reasons, the most frequent first.
fn counted(counts: &TextCounts) -> String {
    let all: u64 = counts.values().sum();
    let kept = counts.get(KEPT).copied().unwrap_or_default();
    let mut dropped: Vec<_> = counts.iter().filter(|(name, _)| *name != KEPT).collect();
    dropped.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<_> = dropped.iter().map(|(name, count)| format!("{count} {name}")).collect();
    match reasons.is_empty() {
        true => format!("{kept} of {all} kept"),
        false => format!("{kept} of {all} kept; {}", reasons.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_most_frequent_first() {
        let counts = [("kept", 3), ("url", 1), ("rank", 4)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(counted(&counts.into()), "3 of 8 kept; 4 rank, 1 url");
        assert_eq!(counted(&TextCounts::new()), "0 of 0 kept");
    }
}
