//! Another selection from scores that are there: no model is asked.

use std::path::PathBuf;

use super::dedup::{DedupRule, DuplicateList};
use super::finish::{CurationSummary, RowPlaces};
use super::job::CurationJob;
use super::selection::SelectionSettings;
use crate::corpus::ingest::Share;
use crate::error::{DatasetError, Result};
use crate::store::Location;
use crate::store::record::create_same;

/// Where the list of duplicates is.
const DUPLICATES: &str = "duplicates.parquet";

/// What is selected anew.
#[derive(Debug, Clone)]
pub struct Reselection {
    /// Which texts are kept.
    pub selection: SelectionSettings,
    /// Leave out rows whose picture is another row's.
    pub dedup: Option<DedupRule>,
    /// Tasks to do.
    pub share: Share,
    /// Folder on this machine for sorting, and memory to sort in.
    pub scratch: PathBuf,
    /// Bytes.
    pub memory_bytes: usize,
}

/// Selects anew from the scores of `from` into `out`, which becomes a job of its own; `progress` is told what is done
/// after every task. What an earlier run has done is not done again. Duplicates are looked for once, and their list is
/// kept as `duplicates.parquet`.
///
/// # Errors
/// [`DatasetError::Setting`] if a task of `from` has no scores yet; as [`CurationJob::begin`] and
/// [`CurationJob::finish_task`].
pub async fn reselect(
    from: &CurationJob,
    out: &Location,
    wanted: &Reselection,
    mut progress: impl FnMut(&CurationSummary),
) -> Result<CurationSummary> {
    let share = wanted.share;
    let job = from.begin_again(out, &wanted.selection, wanted.dedup).await?;
    let duplicates = match wanted.dedup {
        Some(rule) => Some(duplicates(from, out, rule, wanted).await?),
        None => None,
    };
    let mut summary = CurationSummary { tasks: job.tasks().len() as u64, ..CurationSummary::default() };
    for number in 0..job.tasks().len() as u64 {
        let known = job.task_done(number).await?;
        let done = match known {
            Some(done) => done,
            None if number % share.count.max(1) == share.index => {
                let Some(scored) = job.read_scored(number).await? else {
                    let text =
                        format!("task {number} of {} has no scores yet; finish it first", from.output());
                    return Err(DatasetError::Setting(text));
                };
                let left_out = duplicates.as_ref().map_or_else(RowPlaces::new, |list| list.of_task(number));
                job.write_task(&job.read_task(number).await?, &scored, &left_out).await?
            }
            None => continue,
        };
        summary.add(&done);
        progress(&summary);
    }
    job.summary().await
}

/// The list that is there, or that is made now.
async fn duplicates(
    from: &CurationJob,
    out: &Location,
    rule: DedupRule,
    wanted: &Reselection,
) -> Result<DuplicateList> {
    let place = out.join(DUPLICATES);
    if let Some(content) = place.read().await? {
        return DuplicateList::from_parquet(content);
    }
    let content = from.duplicates(rule, &wanted.scratch, wanted.memory_bytes).await?;
    create_same(&place, content.clone()).await?;
    DuplicateList::from_parquet(content)
}
