//! Another selection from scores that are there: no model is asked.

use std::path::{Path, PathBuf};

use blip2_dataset::corpus::ingest::Share;
use blip2_dataset::error::{DatasetError, Result};
use blip2_store::Location;
use blip2_store::record::create_same;
use bytes::Bytes;

use crate::dedup::{DedupRule, DuplicateFinder, DuplicateList, ImageHash, RowPlaces};
use crate::finish::CurationSummary;
use crate::job::CurationJob;
use crate::select::SelectionSettings;

/// Where the list of duplicates is.
const DUPLICATES: &str = "duplicates.parquet";

/// What is selected anew.
#[derive(Debug, Clone)]
pub struct Reselection {
    /// Which texts are kept.
    pub selection: SelectionSettings,
    /// Leave out rows whose image is another row's.
    pub dedup: Option<DedupRule>,
    /// Tasks to do.
    pub share: Share,
    /// Folder on this machine for sorting, and memory to sort in.
    pub scratch: PathBuf,
    /// Bytes.
    pub memory_bytes: usize,
}

/// Selects anew from the scores of `from` into `out`, which becomes a job of its own; `progress` is told what
/// is done after every task. What an earlier run has done is not done again. Duplicates are looked for once,
/// and their list is kept as `duplicates.parquet`.
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

impl CurationJob {
    /// The images of all scored tasks, in their order; `scratch` is a folder on this machine for about 24
    /// bytes a row.
    ///
    /// # Errors
    /// [`DatasetError::Setting`] if a task has no scores yet; `StoreError::Failed`,
    /// [`DatasetError::Malformed`].
    pub async fn duplicates(&self, rule: DedupRule, scratch: &Path, memory_bytes: usize) -> Result<Bytes> {
        let mut finder = DuplicateFinder::new(rule, scratch, memory_bytes)?;
        for task in 0..self.tasks().len() as u64 {
            let Some(rows) = self.read_scored(task).await? else {
                let text = format!("task {task} of {} has no scores yet; finish it first", self.output());
                return Err(DatasetError::Setting(text));
            };
            // Tasks are runs of row groups, which are counted in 32 bits for a file.
            let number = u32::try_from(task)
                .map_err(|error| DatasetError::Setting(format!("task {task}: {error}")))?;
            for row in rows {
                let place = [number, row.row_group, row.row];
                let (sha256, perceptual_hash) = (row.sha256, row.perceptual_hash);
                finder.push(ImageHash { place, sha256, perceptual_hash })?;
            }
        }
        let found = tokio::task::spawn_blocking(move || finder.finish()).await;
        found.map_err(|error| DatasetError::Thread { reason: error.to_string() })?
    }
}
