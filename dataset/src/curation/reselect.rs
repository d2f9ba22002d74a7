//! Another selection from scores that are there: no model is asked.

use super::dedup::DuplicateList;
use super::finish::{CurationSummary, RowPlaces};
use super::job::CurationJob;
use super::selection::SelectionSettings;
use crate::error::{DatasetError, Result};
use crate::ingest::Share;
use crate::store::Location;

/// Selects anew from the scores of `from` into `out`, which becomes a job of its own; `progress` is told what is done
/// after every task. What an earlier run has done is not done again.
///
/// # Errors
/// [`DatasetError::Setting`] if a task of `from` has no scores yet; as [`CurationJob::begin`] and
/// [`CurationJob::finish_task`].
pub async fn reselect(
    from: &CurationJob,
    out: &Location,
    selection: &SelectionSettings,
    duplicates: Option<&DuplicateList>,
    share: Share,
    mut progress: impl FnMut(&CurationSummary),
) -> Result<CurationSummary> {
    let job = from.begin_again(out, selection, duplicates.is_some()).await?;
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
                let left_out = duplicates.map_or_else(RowPlaces::new, |list| list.of_task(number));
                job.write_task(&job.read_task(number).await?, &scored, &left_out).await?
            }
            None => continue,
        };
        summary.add(&done);
        progress(&summary);
    }
    job.summary().await
}
