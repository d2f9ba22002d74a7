//! Tasks from reading to their record.

use blip2_dataset::corpus::ingest::Share;
use blip2_evaluation::fault::Fault as _;
use tokio_util::sync::CancellationToken;

use crate::error::{CURATE_LESS, CurationError, Result};
use crate::finish::{CurationSummary, TaskDone};
use crate::job::CurationJob;
use crate::scored::ScoredText;
use crate::scoring::{CuratedImage, CurationModels, CurationTimes};
use crate::task::CurationTask;

/// Models that tasks are done with, one after the other.
pub struct TaskRunner {
    job: CurationJob,
    /// Away while they compute.
    models: Option<CurationModels>,
    times: CurationTimes,
}

impl TaskRunner {
    /// For the tasks of `job`.
    pub fn new(job: CurationJob, models: CurationModels) -> Self {
        Self { job, models: Some(models), times: CurationTimes::default() }
    }

    /// Where the time of all tasks so far went.
    pub fn times(&self) -> CurationTimes {
        self.times
    }

    /// Does a task, or what is left of it.
    ///
    /// # Errors
    /// As [`CurationJob::read_task`], [`CurationModels::score`] and [`CurationJob::finish_task`].
    pub async fn run(&mut self, number: u64) -> Result<TaskDone> {
        if let Some(done) = self.job.task_done(number).await? {
            return Ok(done);
        }
        let task = self.job.read_task(number).await?;
        if let Some(scored) = self.job.read_scored(number).await? {
            return Ok(self.job.finish_scored_task(&task, &scored).await?);
        }
        let lost = || CurationError::Panicked("in a task before".into());
        let models = self.models.take().ok_or_else(lost)?;
        let device = models.device;
        let mut times = self.times;
        let computed = tokio::task::spawn_blocking(move || {
            let texts = score(&models, &task, &mut times);
            (models, task, texts, times)
        });
        let (models, task, texts, times) = computed
            .await
            .map_err(|error| CurationError::panicked(error.to_string(), &device, CURATE_LESS))?;
        (self.models, self.times) = (Some(models), times);
        let texts = texts.map_err(|error| error.blamed_on(&device, CURATE_LESS))?;
        Ok(self.job.finish_task(&task, texts).await?)
    }

    /// Does the tasks of a share that are not done, without a coordinator; `progress` is told what is done
    /// after each. Ends early, between two tasks, when `stop` is cancelled.
    ///
    /// # Errors
    /// As [`TaskRunner::run`].
    pub async fn run_share(
        &mut self,
        share: Share,
        stop: &CancellationToken,
        mut progress: impl FnMut(&TaskDone),
    ) -> Result<CurationSummary> {
        let done = self.job.tasks_done().await?;
        for number in 0..self.job.tasks().len() as u64 {
            if number % share.count.max(1) == share.index && !done.contains(&number) && !stop.is_cancelled() {
                progress(&self.run(number).await?);
            }
        }
        Ok(self.job.summary().await?)
    }
}

/// The texts of a task's images, decoded a batch at a time.
fn score(
    models: &CurationModels,
    task: &CurationTask,
    times: &mut CurationTimes,
) -> Result<Vec<Vec<ScoredText>>> {
    let mut all = Vec::with_capacity(task.rows.len());
    for rows in task.rows.chunks(models.batch.max(1)) {
        let images = rows
            .iter()
            .map(|row| Ok(CuratedImage { image: row.decode()?, web: row.web.clone(), draw: row.draw }));
        all.extend(models.score(&images.collect::<Result<Vec<_>>>()?, times)?);
    }
    Ok(all)
}
