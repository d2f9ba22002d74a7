//! Tasks from reading to their record.

use std::collections::BTreeSet;

use blip2_dataset::corpus::ingest::Share;
use blip2_evaluation::fault::Fault as _;
use blip2_proto::v1::LeaseStatusReply;
use tokio_util::sync::CancellationToken;

use crate::counted::Counted;
use crate::error::{CURATE_LESS, CurationError, Result};
use crate::finish::{CurationSummary, TaskDone};
use crate::job::CurationJob;
use crate::scored::ScoredText;
use crate::scoring::{CuratedImage, CurationModels, CurationTimes};
use crate::task::CurationTask;

/// The one worker of a share.
const THIS_PROCESS: &str = "this process";

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

    /// Does the tasks of a share that are not done, without a coordinator; `progress` is told how far the
    /// share is, first of all and before and after each task, and `counted`, if anybody watches, what its
    /// tasks have come to. Ends early, between two tasks, when `stop` is cancelled.
    ///
    /// # Errors
    /// As [`TaskRunner::run`].
    pub async fn run_share(
        &mut self,
        share: Share,
        stop: &CancellationToken,
        counted: Option<&Counted>,
        mut progress: impl FnMut(&LeaseStatusReply),
    ) -> Result<CurationSummary> {
        let job = self.job.clone();
        let before = job.tasks_done().await?;
        let own = (0..job.tasks().len() as u64).filter(|task| task % share.count.max(1) == share.index);
        let (done, open): (BTreeSet<u64>, BTreeSet<u64>) = own.partition(|task| before.contains(task));
        let mut status = LeaseStatusReply {
            tasks: (done.len() + open.len()) as u64,
            done: done.len() as u64,
            ..LeaseStatusReply::default()
        };
        progress(&status);
        let earlier = async {
            if let Some(counted) = counted {
                counted.count_earlier(&job, done).await;
            }
        };
        let work = async {
            for number in open {
                if stop.is_cancelled() {
                    break;
                }
                (status.leased, status.workers) = (1, vec![THIS_PROCESS.to_owned()]);
                progress(&status);
                let task = self.run(number).await?;
                if let Some(counted) = counted {
                    counted.count(&job, &task).await;
                }
                status.done += 1;
                status.rows += task.rows_read;
                (status.leased, status.workers) = (0, Vec::new());
                progress(&status);
            }
            Ok::<_, CurationError>(())
        };
        let (mut work, mut earlier) = (std::pin::pin!(work), std::pin::pin!(earlier));
        tokio::select! {
            worked = &mut work => {
                worked?;
                if !stop.is_cancelled() {
                    earlier.await;
                }
            }
            () = &mut earlier => work.await?,
        }
        Ok(job.summary().await?)
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
