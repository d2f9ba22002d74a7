//! CapFilt: which texts of a picture are worth training on.
//!
//! A job is cut into *tasks*, runs of row groups of its input. A task is done in two steps:
//!
//! 1. Its pictures are captioned, and all texts scored. That is the expensive step, and its result may depend on the
//!    device; so it becomes one object, created once, that everything after reads.
//! 2. Texts are kept or dropped, and the rows that keep one are written in the layout of training. That is a function of
//!    the input, the scores and the selection alone, so that whoever does it writes the same bytes, and a selection may
//!    be changed later without a model ([`reselect`]).
//!
//! ```text
//! OUT/curate.json               what is curated and how: written first, compared by every later run
//! OUT/scored/000003.parquet     every text of task 3 with its scores, without pictures: created once
//! OUT/part-000003.parquet       its rows that keep a text
//! OUT/rejected/000003.parquet   its rows that cannot be used, with the reason
//! OUT/done/000003.json          written last: the task's file with length and BLAKE3, its counts
//! OUT/summary.json              written when all tasks are done
//! OUT/runs/TIME-PROCESS.json    how long a run took
//! ```

mod dedup;
mod finish;
mod job;
mod part;
mod reselect;
mod rules;
mod runs;
mod scored_file;
mod scored_text;
mod selection;
mod task;
#[cfg(test)]
mod tests;

pub use dedup::{DedupRule, DuplicateFinder, DuplicateList, MAX_NEAR_BITS, PictureHash};
pub use finish::{CurationSummary, KEPT, TaskDone, TextCounts};
pub use job::{CurationJob, CurationSettings, TaskPlace};
pub use reselect::{Reselection, reselect};
pub use rules::{BrokenRule, RuleSettings};
pub use runs::RunRecord;
pub use scored_text::{ScoredRow, ScoredText, TextSource};
pub use selection::{CurationMode, DropReason, JudgedText, SelectionSettings, select};
pub use task::{CurationTask, TaskRow};
