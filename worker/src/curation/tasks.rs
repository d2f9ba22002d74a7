//! Tasks from reading to their record.

use blip2_curation::finish::{CurationSummary, TaskDone};
use blip2_curation::job::CurationJob;
use blip2_curation::scored::ScoredText;
use blip2_curation::task::CurationTask;
use blip2_dataset::corpus::ingest::Share;
use tokio_util::sync::CancellationToken;

use super::{CuratedPicture, CurationModels, CurationTimes};
use crate::error::{Result, WorkerError};
use crate::own_device::{OwnDevice, Work};

/// Models that tasks are done with, one after the other.
pub struct TaskRunner {
    job: CurationJob,
    /// Away while they compute.
    models: Option<CurationModels>,
    device: OwnDevice,
    times: CurationTimes,
}

impl TaskRunner {
    /// For the tasks of `job`.
    pub fn new(job: CurationJob, models: CurationModels) -> Self {
        let device = OwnDevice::default();
        if let Ok(name) = models.device() {
            device.chosen(name);
        }
        Self { job, models: Some(models), device, times: CurationTimes::default() }
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
        let lost = || WorkerError::Panicked("in a task before".into());
        let models = self.models.take().ok_or_else(lost)?;
        let mut times = self.times;
        let computed = tokio::task::spawn_blocking(move || {
            let texts = score(&models, &task, &mut times);
            (models, task, texts, times)
        });
        let (models, task, texts, times) =
            computed.await.map_err(|error| self.device.panicked(error.to_string(), Work::Curation))?;
        (self.models, self.times) = (Some(models), times);
        let texts = texts.map_err(|error| self.device.blamed(error, Work::Curation))?;
        Ok(self.job.finish_task(&task, texts).await?)
    }

    /// Does the tasks of a share that are not done, without a coordinator; `progress` is told what is done after each.
    /// Ends early, between two tasks, when `stop` is cancelled.
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

/// The texts of a task's pictures, decoded a batch at a time.
fn score(
    models: &CurationModels,
    task: &CurationTask,
    times: &mut CurationTimes,
) -> Result<Vec<Vec<ScoredText>>> {
    let mut all = Vec::with_capacity(task.rows.len());
    for rows in task.rows.chunks(models.batch()) {
        let pictures = rows
            .iter()
            .map(|row| Ok(CuratedPicture { image: row.decode()?, web: row.web.clone(), draw: row.draw }));
        all.extend(models.score(&pictures.collect::<Result<Vec<_>>>()?, times)?);
    }
    Ok(all)
}
