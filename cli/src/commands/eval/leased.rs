//! Units of an evaluation on leases: their records, and a worker that does them.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use blip2_dataset::error::DatasetError;
use blip2_evaluation::job::{EvaluationJob, Phase};
use blip2_evaluation::job_error::{JobError, Result as JobResult};
use blip2_leases::client::LeaseClient;
use blip2_leases::server::LeasedWork as HandedOut;
use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::v1::report_request::Outcome;
use blip2_proto::v1::{LeasedTask, lease_reply};
use blip2_run::exit::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::async_trait;

use crate::error::CliError;

/// What workers are told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LeasedWork {
    /// `caption`, `vqa`, `retrieval` or `itm`.
    pub(super) task: String,
    /// Where the evaluation was to be computed.
    pub(super) device: String,
    /// The command's arguments.
    pub(super) evaluation: Value,
}

/// The units of all phases as tasks: those of the first phase come first.
#[derive(Debug, Clone)]
pub(super) struct UnitTasks {
    pub(super) job: EvaluationJob,
    pub(super) phases: &'static [Phase],
}

impl UnitTasks {
    pub(super) fn count(&self) -> u64 {
        self.job.units() * self.phases.len() as u64
    }

    /// The phase's place, and the unit.
    fn of(&self, task: u64) -> Option<(usize, u64)> {
        let units = self.job.units().max(1);
        let phase = usize::try_from(task / units).ok().filter(|phase| *phase < self.phases.len())?;
        Some((phase, task % units))
    }

    /// First tasks of the phases, each of which needs all results of those before.
    pub(super) fn barriers(&self) -> Vec<u64> {
        (1..self.phases.len() as u64).map(|phase| phase * self.job.units()).collect()
    }

    /// Tasks whose results are there.
    pub(super) async fn done(&self) -> JobResult<std::collections::BTreeSet<u64>> {
        let mut done = std::collections::BTreeSet::new();
        for (first, phase) in (0..).map(|phase| phase * self.job.units()).zip(self.phases) {
            done.extend(self.job.done(*phase).await?.into_iter().map(|unit| first + unit));
        }
        Ok(done)
    }
}

#[async_trait]
impl HandedOut for UnitTasks {
    async fn rows_done(&self, task: u64) -> Result<Option<u64>, String> {
        let Some((phase, unit)) = self.of(task) else { return Ok(None) };
        let is_done = self.job.is_done(self.phases[phase], unit).await.map_err(|error| error.to_string())?;
        Ok(is_done.then(|| self.job.items(unit).len() as u64))
    }
}

/// A unit that this worker has, kept until it is dropped.
struct Held {
    task: LeasedTask,
    _renewing: JoinSet<()>,
}

/// The units that a coordinator gives this process.
pub(super) struct LeasedUnits {
    client: LeaseClient,
    /// One of a later phase than that which is computed.
    next: RefCell<Option<Held>>,
}

impl LeasedUnits {
    pub(super) fn new(client: LeaseClient) -> Self {
        Self { client, next: RefCell::new(None) }
    }

    /// Computes units of a phase as long as there are some. `None` when units of a later phase are handed
    /// out, which is when all of this one are done; else how the worker ends.
    pub(super) async fn work(
        &self,
        tasks: &UnitTasks,
        phase: usize,
        stop: &CancellationToken,
        mut compute: impl AsyncFnMut(Range<usize>) -> JobResult<Vec<u8>>,
    ) -> Result<Option<Exit>, CliError> {
        loop {
            let Some(held) = self.lease(stop).await? else {
                return Ok(Some(if stop.is_cancelled() { Exit::Interrupted } else { Exit::Done }));
            };
            let Some((of, unit)) = tasks.of(held.task.task) else {
                let reason = format!("task {} is none of this evaluation", held.task.task);
                return Err(CliError::failed(reason));
            };
            if of > phase {
                self.next.replace(Some(held));
                return Ok(None);
            }
            if stop.is_cancelled() {
                self.client.report(held.task, Outcome::GivenBack(true)).await?;
                return Ok(Some(Exit::Interrupted));
            }
            let (outcome, end) = if of == phase {
                let result = do_unit(tasks, tasks.phases[of], unit, &mut compute).await;
                outcome(result, tasks.job.items(unit).len() as u64)
            } else {
                // Somebody took away results that were there.
                let reason =
                    format!("results of {} are gone: start the workers again", tasks.phases[of].folder);
                (Outcome::Failed(reason.clone()), Err(CliError::failed(reason)))
            };
            self.client.report(held.task, outcome).await?;
            end?;
        }
    }

    /// The unit that was put aside, or another; none when there are no more, or `stop`.
    async fn lease(&self, stop: &CancellationToken) -> Result<Option<Held>, CliError> {
        if let Some(held) = self.next.take() {
            return Ok(Some(held));
        }
        while !stop.is_cancelled() {
            match self.client.lease().await? {
                Some(lease_reply::Kind::Task(task)) => {
                    return Ok(Some(Held { task, _renewing: self.client.renewing(task) }));
                }
                Some(lease_reply::Kind::WaitMs(millis)) => {
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(u64::from(millis))) => {}
                        () = stop.cancelled() => {}
                    }
                }
                Some(lease_reply::Kind::Finished(_)) | None => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// Computes a unit unless its results are there.
async fn do_unit(
    tasks: &UnitTasks,
    phase: Phase,
    unit: u64,
    compute: &mut impl AsyncFnMut(Range<usize>) -> JobResult<Vec<u8>>,
) -> JobResult<()> {
    if tasks.job.is_done(phase, unit).await? {
        return Ok(());
    }
    let result = compute(tasks.job.items(unit)).await?;
    tasks.job.store(phase, unit, result).await
}

/// What the coordinator is told of a unit, and whether the worker goes on.
fn outcome(result: JobResult<()>, rows: u64) -> (Outcome, Result<(), CliError>) {
    match result {
        Ok(()) => (Outcome::DoneRows(rows), Ok(())),
        Err(error) => {
            tracing::warn!(%error, "a unit failed");
            let outcome = Outcome::Failed(visible(&error.to_string(), MAX_TEXT));
            // A model that panicked is gone; after anything else the next unit may do better.
            let is_over = matches!(error, JobError::Data(DatasetError::Thread { .. }));
            (outcome, if is_over { Err(error.into()) } else { Ok(()) })
        }
    }
}
